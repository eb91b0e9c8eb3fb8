//! STATUS: whether an ADD can be served.

use jackfield_cni::plugin::{ErrorCode, PluginError};
use jackfield_kernel::{Classifier, LinkChange, Namespace, Qdisc, Redirect, Rtnetlink, Tap};

use crate::failure::{self, Batch};

/// Does in a namespace of its own, which goes with this process, all that an ADD does.
pub(crate) fn status() -> Result<(), PluginError> {
    rehearse().map_err(|error| {
        let msg = "tc-redirect-tap cannot add a tap device here";
        PluginError::new(ErrorCode::NOT_AVAILABLE, msg).with_details(error.msg)
    })
}

fn rehearse() -> Result<(), PluginError> {
    Namespace::anonymous().and_then(|namespace| namespace.enter()).map_err(failure::kernel)?;
    let mut kernel = Rtnetlink::open().map_err(failure::kernel)?;
    let (one, other) =
        (Tap::create(None).map_err(failure::kernel)?, Tap::create(None).map_err(failure::kernel)?);
    let (from, to) =
        (one.index().map_err(failure::kernel)?, other.index().map_err(failure::kernel)?);
    let redirect = Redirect {
        from,
        to,
        preference: Redirect::FIRST_PREFERENCE,
        classifier: Classifier::U32,
        cookie: Some([0; 16]),
    };
    let up = LinkChange { up: Some(true), alias: Some("status"), ..LinkChange::default() };
    let batch: Batch = vec![
        ("set up a tap device".to_owned(), up.request(from)),
        ("add an ingress qdisc".to_owned(), Qdisc::add_ingress(from)),
        ("redirect by a u32 filter".to_owned(), redirect.add()),
    ];
    failure::send(&mut kernel, batch, |_| false)
}
