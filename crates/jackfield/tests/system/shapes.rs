//! What holds for a host of both families holds for one without IPv4, and for one whose interfaces
//! have delegated prefixes: the same tests again.

use std::time::Duration;

use crate::harness::Shape;
use crate::published::Program;
use crate::{client_matrix, faults, gone, killed, lag, races, untouched};

/// Writes tests of one shape, in a module of their own.
macro_rules! again {
    ($module:ident, $shape:expr; $($(#[$attribute:meta])* $name:ident: $test:expr;)*) => {
        mod $module {
            use super::*;
            $(#[test] $(#[$attribute])* fn $name() { $test($shape); })*
        }
    };
}

again! {
    on_a_host_without_ipv4, Shape::Ipv6Only;

    everybody_meets_one_address_of_every_interface:
        |shape| client_matrix::everybody_meets_every_address(shape, 1);
    everybody_meets_a_port_that_is_published:
        |shape| client_matrix::everybody_meets_a_published_port(shape, 1, Program::Nft);
    nothing_is_lost_while_an_interface_comes_and_goes_ten_times:
        |shape| untouched::nothing_is_lost_while_an_interface_comes_and_goes(shape, 10);
    an_interface_that_is_deleted_leaves_what_it_found:
        gone::deleted_an_interface_leaves_what_it_found;
    what_went_while_no_agent_ran_is_cleaned_up_by_the_next:
        gone::what_went_unseen_is_cleaned_up_by_an_agent;
    an_unplugged_interface_has_its_group_and_settings_again:
        |shape| gone::unplugged_it_is_as_the_administrator_left_it(shape, gone::GROUP_AND_SETTINGS);
    a_second_pass_over_an_unchanged_machine_writes_nothing:
        gone::a_second_pass_writes_nothing;
    an_agent_that_is_killed_while_it_plugs_finishes_when_it_is_started_again:
        killed::killed_while_it_plugs_an_agent_finishes;
    metadata_that_comes_piece_by_piece_is_right_within_a_second_and_never_wrong:
        lag::piece_by_piece_metadata_is_right_within_a_second;
    faults_of_the_whole_service_are_endured:
        faults::three_faults_of_the_whole_service_are_endured;
    an_interface_that_is_deleted_while_it_is_configured_leaves_nothing:
        races::deleted_while_it_is_configured_it_leaves_nothing;
    all_that_is_ours_is_back_within_a_second_after_somebody_flushed_it:
        races::all_that_somebody_flushed_is_back_within_a_second;
    a_link_that_goes_down_and_up_has_all_its_routes_back_within_a_second:
        races::down_and_up_a_link_has_all_its_routes_back;

    #[ignore = "long: as many pairs as with IPv4"]
    everybody_meets_fifty_addresses_of_every_interface:
        |shape| client_matrix::everybody_meets_every_address(shape, 50);
    #[ignore = "long: a thousand plugs and unplugs"]
    nothing_is_lost_while_an_interface_comes_and_goes_a_thousand_times:
        |shape| untouched::nothing_is_lost_while_an_interface_comes_and_goes(shape, 1000);
    #[ignore = "long: killed at every system call, some hundreds"]
    a_plug_and_an_unplug_that_are_killed_anywhere_are_finished_or_undone_by_the_next_command:
        killed::a_plug_and_an_unplug_are_killed_at_every_system_call;
    #[ignore = "long: killed at every system call, some hundreds"]
    a_scan_that_is_killed_anywhere_is_finished_by_the_next:
        killed::scans_are_killed_at_every_system_call;
    #[ignore = "long: a quarter of a minute of storm"]
    an_agent_that_is_killed_at_random_in_a_storm_ends_in_the_right_state:
        |shape| killed::storm(shape, Duration::from_secs(15));
    #[ignore = "long: metadata that lags for ten seconds"]
    metadata_that_lags_is_right_within_a_second_and_never_wrong:
        lags;
    #[ignore = "long: every fault there is"]
    every_fault_is_endured:
        faults::every_fault_is_endured;
    #[ignore = "long: forty races"]
    an_interface_that_is_renamed_or_moved_away_works_or_leaves_nothing:
        goes_elsewhere;
}

// A plug and an unplug with prefixes are killed at every system call in `killed.rs`.
again! {
    with_delegated_prefixes, Shape::Prefixes;

    everybody_meets_every_address_and_a_port_that_is_published:
        |shape| client_matrix::everybody_meets_a_published_port(shape, 1, Program::Nft);
    nothing_is_lost_while_an_interface_comes_and_goes_ten_times:
        |shape| untouched::nothing_is_lost_while_an_interface_comes_and_goes(shape, 10);
    an_interface_that_is_deleted_leaves_what_it_found:
        gone::deleted_an_interface_leaves_what_it_found;
    what_went_while_no_agent_ran_is_cleaned_up_by_the_next:
        gone::what_went_unseen_is_cleaned_up_by_an_agent;
    an_unplugged_interface_has_its_group_and_settings_again:
        |shape| gone::unplugged_it_is_as_the_administrator_left_it(shape, gone::GROUP_AND_SETTINGS);
    a_second_pass_over_an_unchanged_machine_writes_nothing:
        gone::a_second_pass_writes_nothing;
    metadata_that_comes_piece_by_piece_is_right_within_a_second_and_never_wrong:
        lag::piece_by_piece_metadata_is_right_within_a_second;
    faults_of_the_whole_service_are_endured:
        faults::three_faults_of_the_whole_service_are_endured;
    an_interface_that_is_deleted_while_it_is_configured_leaves_nothing:
        races::deleted_while_it_is_configured_it_leaves_nothing;
    all_that_is_ours_is_back_within_a_second_after_somebody_flushed_it:
        races::all_that_somebody_flushed_is_back_within_a_second;
    a_link_that_goes_down_and_up_has_all_its_routes_back_within_a_second:
        races::down_and_up_a_link_has_all_its_routes_back;

    #[ignore = "long: a hundred plugs and unplugs"]
    nothing_is_lost_while_an_interface_comes_and_goes_a_hundred_times:
        |shape| untouched::nothing_is_lost_while_an_interface_comes_and_goes(shape, 100);
    #[ignore = "long: a quarter of a minute of storm"]
    an_agent_that_is_killed_at_random_in_a_storm_ends_in_the_right_state:
        |shape| killed::storm(shape, Duration::from_secs(15));
    #[ignore = "long: metadata that lags for ten seconds"]
    metadata_that_lags_is_right_within_a_second_and_never_wrong:
        lags;
    #[ignore = "long: forty races"]
    an_interface_that_is_renamed_or_moved_away_works_or_leaves_nothing:
        goes_elsewhere;
}

fn lags(shape: Shape) {
    lag::as_slow_as_on_ec2_metadata_is_right_within_a_second(shape);
    lag::in_different_orders_two_interfaces_never_meet_in_one_table(shape);
}

fn goes_elsewhere(shape: Shape) {
    races::renamed_while_it_is_configured_it_works(shape);
    races::moved_away_while_it_is_configured_it_may_come_back(shape);
    gone::moved_away_an_interface_leaves_what_it_found(shape);
    gone::what_went_unseen_is_cleaned_up_by_its_unplug(shape);
}
