//! Texts of `[Section]` and `Key=value` lines: systemd's and NetworkManager's.

/// Each assignment with its section, in order. What stands before any section has an empty one.
pub(super) fn assignments(text: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    let mut section = "";
    text.lines().filter_map(move |line| {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            return None;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
            return None;
        }
        let (key, value) = line.split_once('=')?;
        Some((section, key.trim(), value.trim()))
    })
}

/// The last value of a key.
pub(super) fn last<'t>(text: &'t str, section: &str, key: &str) -> Option<&'t str> {
    assignments(text).filter(|(of, is, _)| *of == section && *is == key).map(|(.., it)| it).last()
}

/// As systemd and GLib read a boolean.
pub(super) fn is_true(value: &str) -> bool {
    ["1", "yes", "y", "true", "t", "on"].contains(&value.to_ascii_lowercase().as_str())
}

/// Whether a pattern of the shell matches: `*`, `?`. `None` where it has more than that.
pub(super) fn matches(pattern: &str, text: &str) -> Option<bool> {
    if pattern.contains(['[', '\\']) {
        return None;
    }
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    // Which beginnings of the text the pattern matches so far.
    let mut ends = vec![false; text.len() + 1];
    if let Some(first) = ends.first_mut() {
        *first = true;
    }
    for wanted in pattern {
        let mut next = vec![false; ends.len()];
        let mut reached = false;
        for (at, (is, end)) in next.iter_mut().zip(&ends).enumerate() {
            reached |= *end;
            let before = at.checked_sub(1);
            let follows = || before.and_then(|before| ends.get(before)).is_some_and(|is| *is);
            let same = || before.and_then(|before| text.get(before)) == Some(&wanted);
            *is = match wanted {
                '*' => reached,
                '?' => follows(),
                _ => follows() && same(),
            };
        }
        ends = next;
    }
    ends.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_the_shell_has_them() {
        for (pattern, text, is) in [
            ("eth*", "eth1", Some(true)),
            ("eth*", "eth", Some(true)),
            ("*", "", Some(true)),
            ("e*1", "eth1", Some(true)),
            ("e*1", "eth2", Some(false)),
            ("eth?", "eth", Some(false)),
            ("eth?", "eth1", Some(true)),
            ("eth1", "eth1", Some(true)),
            ("eth1", "eth10", Some(false)),
            ("eth[12]", "eth1", None),
        ] {
            assert_eq!(matches(pattern, text), is, "{pattern} {text}");
        }
    }

    #[test]
    fn the_last_value_of_a_key_in_its_section_counts() {
        let text = "Before=1\n[A]\nKey = one\n# Key=not\n[B]\nKey=other\n[A]\nKey=two\n";
        assert_eq!(last(text, "A", "Key"), Some("two"));
        assert_eq!(last(text, "", "Before"), Some("1"));
        assert_eq!(last(text, "C", "Key"), None);
    }
}
