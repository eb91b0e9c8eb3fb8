//! Results: whatever is read can be written as every version that can say it, and is read back the
//! same.

#![no_main]

use jackfield_cni::types::{CniResult, Version};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    let Ok(result) = CniResult::parse(json) else { return };
    let own = result.to_json(result.cni_version).expect("it was said in this version");
    for version in Version::ALL {
        let Ok(written) = result.to_json(version) else { continue };
        let read = CniResult::parse(&written).expect("what was written is read");
        assert_eq!(read.cni_version, version);
        let again = read.to_json(version).expect("it was said in this version");
        assert_eq!(written, again);
        if version == result.cni_version {
            assert_eq!(written, own);
        }
    }
});
