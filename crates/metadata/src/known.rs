//! A value of a metadata service in its three states.

/// What is known of one metadata value.
///
/// Only [`Known::Value`] and [`Known::Absent`] may change anything on the host: a value that
/// could not be read says nothing about what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Known<T> {
    /// The service gave this value.
    Value(T),
    /// Absent by authority: the listing that would hold the key was read and does not hold it.
    Absent,
    /// Not read: time-out, throttling, an error of the service, an answer that does not parse, or
    /// a key that is listed and answers 404. Why is in
    /// [`InterfaceFacts::problems`](crate::InterfaceFacts::problems).
    Unknown,
}

impl<T> Known<T> {
    /// The value, where there is one.
    pub fn value(&self) -> Option<&T> {
        match self {
            Known::Value(value) => Some(value),
            Known::Absent | Known::Unknown => None,
        }
    }

    /// The value itself, where there is one.
    pub fn into_value(self) -> Option<T> {
        match self {
            Known::Value(value) => Some(value),
            Known::Absent | Known::Unknown => None,
        }
    }

    /// Whether the value could not be read.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Known::Unknown)
    }

    /// Whether the service has, by authority, no such value.
    pub fn is_absent(&self) -> bool {
        matches!(self, Known::Absent)
    }

    /// The same state with a reference to the value.
    pub fn as_ref(&self) -> Known<&T> {
        match self {
            Known::Value(value) => Known::Value(value),
            Known::Absent => Known::Absent,
            Known::Unknown => Known::Unknown,
        }
    }

    /// The same state with the value mapped.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Known<U> {
        match self {
            Known::Value(value) => Known::Value(f(value)),
            Known::Absent => Known::Absent,
            Known::Unknown => Known::Unknown,
        }
    }
}
