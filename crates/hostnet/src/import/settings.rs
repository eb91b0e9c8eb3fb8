//! Settings of the tools that are `yes` or `no`, as the shell reads them that reads the file.

/// `EC2SYNC`: whether the tool has to do with the interface.
pub(super) const SYNC: &str = "EC2SYNC";
/// `MAINROUTETABLE`: whether the interface has a default route in main.
pub(super) const MAIN_ROUTE: &str = "MAINROUTETABLE";
/// `EC2PROVISIONPFXIPS`: whether the host answers on each address of a delegated prefix.
pub(super) const PREFIXES: &str = "EC2PROVISIONPFXIPS";

/// What a line says of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No,
    /// It cannot be told what is meant.
    Unclear,
}

/// Whether a text says so somewhere.
pub(super) fn says(text: &str, key: &str, answer: Answer) -> bool {
    text.lines().any(|line| of_line(line, key) == Some(answer))
}

/// The first line of which it cannot be told what it means.
pub(super) fn unclear(text: &str) -> Option<&str> {
    let is_unclear = |line: &&str| {
        [SYNC, MAIN_ROUTE, PREFIXES].iter().any(|key| of_line(line, key) == Some(Answer::Unclear))
    };
    text.lines().find(is_unclear).map(str::trim)
}

fn of_line(line: &str, key: &str) -> Option<Answer> {
    let mut line = line.trim();
    // ifupdown has no such option: in a stanza it is a comment.
    if key == SYNC {
        line = line.trim_start_matches(['#', ' ']);
    }
    let value = line.strip_prefix(key)?.strip_prefix('=')?;
    let ends = [' ', '\t', '#'];
    let quoted =
        ['"', '\''].into_iter().find_map(|quote| Some((quote, value.strip_prefix(quote)?)));
    let value = match quoted {
        None => value.split(ends).next(),
        Some((quote, rest)) => rest
            .split_once(quote)
            .filter(|(_, after)| after.is_empty() || after.starts_with(ends))
            .map(|(value, _)| value),
    };
    Some(match value {
        Some("yes") => Answer::Yes,
        Some("no") => Answer::No,
        _ => Answer::Unclear,
    })
}
