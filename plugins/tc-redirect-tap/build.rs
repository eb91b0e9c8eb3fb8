//! Has the linker put the functions that the plugin uses side by side: most of its start is mapping
//! the pages that they are in. Which they are: `order.ld`, written by `scripts/plugin-order`.

fn main() {
    println!("cargo::rerun-if-changed=order.ld");
    // Static programs alone: a dynamic one's start is dominated by other things.
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|environment| environment == "musl") {
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}/order.ld", env!("CARGO_MANIFEST_DIR"));
    }
}
