//! Whether two paths are of one network namespace, as far as the paths alone can say.

/// Both paths name the same file: `/var/run` is `/run` on every Linux distribution, and `.`, `..`
/// and repeated slashes mean nothing.
///
/// Who can look at the files compares their device and inode instead, which also sees through
/// links and through `/proc/<pid>/ns/net`.
///
/// ```
/// use jackfield_vmconf::same_path;
///
/// assert!(same_path("/var/run/netns/x", "/run//netns/./x"));
/// assert!(!same_path("/run/netns/x", "/run/netns/y"));
/// ```
#[must_use]
pub fn same_path(one: &str, other: &str) -> bool {
    one == other || normalised(one) == normalised(other)
}

fn normalised(path: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    if parts.starts_with(&["var", "run"]) {
        parts.remove(0);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_is_where_var_run_leads() {
        assert!(same_path("/var/run/netns/x", "/run/netns/x"));
        assert!(same_path("/run/netns/../netns/x/", "/run/netns/x"));
        assert!(!same_path("/var/lib/netns/x", "/lib/netns/x"));
        assert!(!same_path("/run/netns/x", "/run/netns/xy"));
        assert!(!same_path("", "/run/netns/x"));
    }
}
