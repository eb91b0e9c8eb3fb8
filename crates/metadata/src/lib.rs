//! Cloud metadata services, as typed facts.
