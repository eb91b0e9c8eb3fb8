//! Network lists: what is read is read back the same from what the cache keeps of it.

#![no_main]

use jackfield_cni::config::NetworkList;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    let Ok(list) = NetworkList::parse(json) else { return };
    assert!(!list.plugins.is_empty());
    let kept = list.to_json().to_string();
    assert_eq!(NetworkList::parse(kept), Ok(list));
});
