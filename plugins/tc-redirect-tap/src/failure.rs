//! What fails, as the errors that the specification wants.

use jackfield_cni::plugin::{ErrorCode, PluginError};
use jackfield_kernel::{Error, Refusal, Request, Rtnetlink};

/// The kernel said no.
pub(crate) fn kernel(error: Error) -> PluginError {
    PluginError::internal(error.to_string())
}

/// A configuration that cannot be served.
pub(crate) fn configuration(msg: impl Into<String>) -> PluginError {
    PluginError::new(ErrorCode::INVALID_CONFIGURATION, msg)
}

/// An environment that cannot be served.
pub(crate) fn environment(msg: impl Into<String>) -> PluginError {
    PluginError::new(ErrorCode::INVALID_ENVIRONMENT, msg)
}

/// Requests with what each is for, as the rest of a sentence that starts with "cannot".
pub(crate) type Batch = Vec<(String, Request)>;

/// Sends all of them at once. The kernel goes on after one that it refuses; the first of those that
/// do not count as done by `is_done` is the error.
pub(crate) fn send(
    kernel: &mut Rtnetlink,
    batch: Batch,
    is_done: impl Fn(&Refusal) -> bool,
) -> Result<(), PluginError> {
    answers(kernel, batch, is_done)?.into_iter().collect()
}

/// The same, with each one's answer at its position.
pub(crate) fn answers(
    kernel: &mut Rtnetlink,
    batch: Batch,
    is_done: impl Fn(&Refusal) -> bool,
) -> Result<Vec<Result<(), PluginError>>, PluginError> {
    let (purposes, requests): (Vec<String>, Vec<Request>) = batch.into_iter().unzip();
    let answers = kernel.batch(&requests).map_err(self::kernel)?;
    let told = purposes.iter().zip(answers).map(|(purpose, answer)| match answer {
        Err(refusal) if !is_done(&refusal) => {
            Err(PluginError::internal(format!("cannot {purpose}: {refusal}")))
        }
        _ => Ok(()),
    });
    Ok(told.collect())
}
