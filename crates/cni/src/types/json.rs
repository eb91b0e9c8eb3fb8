//! Deserialisation: errors that name the field, and the values that Go's encoder leaves out.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::de::{DeserializeOwned, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use crate::Error;

/// Parses a document. Only when that fails it is parsed once more for the path of the field, which
/// costs too much to be kept while all is well.
pub(crate) fn from_slice<T: DeserializeOwned>(
    document: &'static str,
    json: &[u8],
) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(|error| explain::<T>(document, json, &error))
}

fn explain<T: DeserializeOwned>(
    document: &'static str,
    json: &[u8],
    error: &serde_json::Error,
) -> Error {
    if !error.is_data() {
        return Error::Syntax { document, reason: error.to_string() };
    }
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let field = match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Err(error) => error.path().to_string(),
        Ok(_) => String::from("."),
    };
    let field = if field == "." { String::from("the whole") } else { field };
    Error::Field { document, field, reason: error.to_string() }
}

/// `null` is read as the default, as Go does.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An optional string where the empty one means none.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}

/// An optional number where 0 means none.
pub(super) fn positive<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u32>, D::Error> {
    Ok(Option::<u32>::deserialize(deserializer)?.filter(|number| *number != 0))
}

/// An address with its prefix length.
pub(super) fn network<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpNet, D::Error> {
    deserializer
        .deserialize_str(Parse::new("an IP address with a prefix length, as in 10.0.0.2/24"))
}

/// An optional address, where the empty string means none.
pub(super) fn address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<IpAddr>, D::Error> {
    match Option::<Cow<'de, str>>::deserialize(deserializer)? {
        None => Ok(None),
        Some(text) if text.is_empty() => Ok(None),
        Some(text) => Parse::new("an IP address").visit_str(&text).map(Some),
    }
}

/// Text that is parsed by [`FromStr`]; the message says what was expected and what was there.
struct Parse<T> {
    expected: &'static str,
    value: PhantomData<T>,
}

impl<T> Parse<T> {
    const fn new(expected: &'static str) -> Self {
        Self { expected, value: PhantomData }
    }
}

impl<T: FromStr> Visitor<'_> for Parse<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}
