//! What processes that live for a millisecond do another way.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;

use jackfield_kernel::Namespace;

#[test]
fn the_own_namespace_is_told_by_a_socket_as_by_proc() {
    let namespace = Namespace::anonymous().expect("the right to make namespaces");
    let inside = namespace.run(|| Namespace::of_own_sockets().unwrap()).unwrap();
    assert!(inside.is_same(&namespace).unwrap());
    let here = Namespace::of_own_sockets().unwrap();
    assert!(!here.is_same(&namespace).unwrap());
    assert!(here.is_same(&Namespace::current().unwrap()).unwrap());
}

#[test]
fn a_file_that_is_no_namespace_is_opened_and_not_entered() {
    let file = Namespace::open(Path::new("/etc/hosts")).unwrap();
    let error = std::thread::spawn(move || file.enter().unwrap_err()).join().unwrap();
    assert_eq!(error.errno(), Some(22));
    assert!(Namespace::open(Path::new("/nowhere")).is_err());
}
