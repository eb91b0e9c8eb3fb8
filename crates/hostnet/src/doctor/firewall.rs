//! What firewalls do with packet and connection marks, read from what their own programs print. Pure.

use jackfield_kernel::{ConnectionMarks, Mark};

/// A place where a mark is set or looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkUse {
    /// Where.
    pub by: String,
    /// The mark, and which bits are meant.
    pub mark: Mark,
    /// It is set; otherwise it is looked for.
    pub sets: bool,
}

/// From `nft list ruleset`. What is ours is left out.
pub(super) fn of_nft(text: &str) -> Vec<MarkUse> {
    let mut uses = Vec::new();
    let (mut table, mut chain) = (String::new(), String::new());
    for line in text.lines() {
        let words: Vec<&str> =
            line.split_whitespace().map(|it| it.trim_matches(['(', ')'])).collect();
        match words.as_slice() {
            ["table", family, name, ..] => table = format!("{family} {name}"),
            ["chain", name, ..] => chain = (*name).to_owned(),
            words if table != format!("inet {}", ConnectionMarks::TABLE) => {
                let mut rest = words;
                while let Some(at) = rest.iter().position(|word| *word == "mark") {
                    rest = rest.get(at + 1..).unwrap_or_default();
                    let by = || format!("nftables chain {table} {chain}");
                    uses.extend(nft_use(rest).map(|(mark, sets)| MarkUse { by: by(), mark, sets }));
                }
            }
            _ => {}
        }
    }
    uses
}

/// What stands behind a word `mark`.
fn nft_use(words: &[&str]) -> Option<(Mark, bool)> {
    let whole = |value| Mark { value, mask: u32::MAX };
    match words {
        ["set", value, ..] if number(value).is_some() => Some((whole(number(value)?), true)),
        // The mark itself, or the other one, with bits taken out and put in.
        ["set", rest @ ..] => {
            let behind = rest.iter().position(|word| *word == "mark")?;
            match rest.get(behind + 1..)? {
                ["and" | "&", keep, "xor" | "^" | "or" | "|", put, ..] => {
                    let (keep, put) = (number(keep)?, number(put)?);
                    Some((Mark { value: put, mask: !keep | put }, true))
                }
                ["or" | "|" | "xor" | "^", put, ..] => {
                    let put = number(put)?;
                    Some((Mark { value: put, mask: put }, true))
                }
                _ => None,
            }
        }
        ["and" | "&", mask, "==" | "!=", value, ..] => {
            Some((Mark { value: number(value)?, mask: number(mask)? }, false))
        }
        ["and" | "&", mask, value, ..] if number(value).is_some() => {
            Some((Mark { value: number(value)?, mask: number(mask)? }, false))
        }
        ["==" | "!=", value, ..] | [value, ..] => Some((whole(number(value)?), false)),
        [] => None,
    }
}

/// From `iptables-save`.
pub(super) fn of_iptables(text: &str) -> Vec<MarkUse> {
    let mut uses = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let chain = match (words.next(), words.next()) {
            (Some("-A"), Some(chain)) => chain,
            _ => continue,
        };
        let words: Vec<&str> = words.collect();
        for pair in words.windows(2) {
            let [option, value] = pair else { continue };
            let sets = match *option {
                "--set-xmark" | "--set-mark" => true,
                "--mark" => false,
                _ => continue,
            };
            if let Some(mark) = value_and_mask(value) {
                uses.push(MarkUse { by: format!("iptables chain {chain}"), mark, sets });
            }
        }
    }
    uses
}

fn value_and_mask(text: &str) -> Option<Mark> {
    match text.split_once('/') {
        Some((value, mask)) => Some(Mark { value: number(value)?, mask: number(mask)? }),
        None => Some(Mark { value: number(text)?, mask: u32::MAX }),
    }
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn short(uses: &[MarkUse]) -> Vec<(u32, u32, bool)> {
        uses.iter().map(|it| (it.mark.value, it.mark.mask, it.sets)).collect()
    }

    #[test]
    fn what_nft_lists_of_marks_is_read_and_what_is_ours_is_not() {
        let text = "table ip mangle {
            chain PREROUTING {
                type filter hook prerouting priority mangle; policy accept;
                iifname \"eth0\" meta mark set 0x00000001 counter
                ct mark set meta mark
                meta mark set ct mark and 0xffffff7f xor 0x80
                meta mark set meta mark | 0x00004000
                meta mark & 0x00008000 == 0x00008000 accept
                (meta mark & 0xff0000) == 0x80000 drop
                ct mark 0x00000007 accept
                meta mark != 0x00000000 return
            }
        }
        table inet jackfield {
            chain forward { ct mark set 0x1 }
            chain x {
                meta mark 0x00000001 accept
            }
        }";
        let all = u32::MAX;
        let expected = [
            (1, all, true),
            (0x80, 0x80, true),
            (0x4000, 0x4000, true),
            (0x8000, 0x8000, false),
            (0x8_0000, 0xff_0000, false),
            (7, all, false),
            (0, all, false),
        ];
        let uses = of_nft(text);
        assert_eq!(short(&uses), expected, "{uses:#?}");
        assert_eq!(uses[0].by, "nftables chain ip mangle PREROUTING");
    }

    #[test]
    fn what_iptables_saves_of_marks_is_read() {
        let text = "*nat\n:KUBE-MARK-MASQ - [0:0]\n\
            -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n\
            -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
            -A PREROUTING -i eth0 -m comment --comment \"AWS, primary ENI\" -j CONNMARK --set-xmark 0x80/0x80\n\
            -A X -j MARK --set-xmark 0x1/0xffffffff\nCOMMIT\n";
        let expected = [
            (0x4000, 0x4000, true),
            (0x4000, 0x4000, false),
            (0x80, 0x80, true),
            (1, u32::MAX, true),
        ];
        let uses = of_iptables(text);
        assert_eq!(short(&uses), expected);
        assert_eq!(uses[2].by, "iptables chain PREROUTING");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(table |chain |mark |set |and |& |or |0x[0-9a-f]{1,9} |-A |--mark |[ -~]|\n){0,60}") {
            let _ = of_nft(&text);
            let _ = of_iptables(&text);
        }
    }
}
