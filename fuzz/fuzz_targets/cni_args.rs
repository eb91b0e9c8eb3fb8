//! `CNI_ARGS`: what is read is read back the same.

#![no_main]

use jackfield_cni::CniArgs;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(args) = text.parse::<CniArgs>() else { return };
    assert_eq!(args.to_string().parse::<CniArgs>().as_ref(), Ok(&args));
    let known: Vec<_> = args.iter().map(|(key, _)| key).collect();
    for key in &known {
        assert!(args.get(key).is_some());
    }
    if args.get("IgnoreUnknown").is_none() {
        assert_eq!(args.check_known(&known), Ok(()));
    }
});
