//! The client matrix by the kernel back-end, and with a container's port as a column.

use crate::client_matrix::*;
use crate::harness::Shape;
use crate::published::Program;

#[test]
fn everybody_meets_one_address_of_every_interface() {
    everybody_meets_every_address(Shape::DualStack, 1);
}

#[test]
fn everybody_meets_three_addresses_of_every_interface() {
    everybody_meets_every_address(Shape::DualStack, 3);
}

#[test]
fn everybody_meets_fifty_addresses_of_every_interface() {
    everybody_meets_every_address(Shape::DualStack, 50);
}

#[test]
fn everybody_meets_a_port_that_nft_publishes_at_two_addresses_of_every_interface() {
    everybody_meets_a_published_port(Shape::DualStack, 2, Program::Nft);
}

#[test]
fn everybody_meets_a_port_that_iptables_publishes() {
    everybody_meets_a_published_port(Shape::DualStack, 1, Program::IptablesNft);
}

#[test]
fn everybody_meets_a_port_that_the_older_iptables_publishes() {
    everybody_meets_a_published_port(Shape::DualStack, 1, Program::IptablesLegacy);
}
