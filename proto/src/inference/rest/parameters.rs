//! The `parameters` objects: a name and a boolean, a number or a string.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::Text;

/// Most entries of one `parameters` object.
pub const MAX_PARAMETERS: usize = 64;

#[derive(Clone, Debug, PartialEq)]
pub enum ParameterValue<'a> {
    Bool(bool),
    Uint(u64),
    /// Negative ones only.
    Int(i64),
    Float(f64),
    Text(Text<'a>),
}

/// Entries in the order of the text; no name stands twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters<'a>(Vec<(Text<'a>, ParameterValue<'a>)>);

impl<'a> Parameters<'a> {
    pub fn get(&self, name: &str) -> Option<&ParameterValue<'a>> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &ParameterValue<'a>)> {
        self.0.iter().map(|(key, value)| (&**key, value))
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = ParameterValue<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a boolean, a number or a string")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(ParameterValue::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(ParameterValue::Uint(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(u64::try_from(value).map_or(ParameterValue::Int(value), ParameterValue::Uint))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(ParameterValue::Float(value))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(ParameterValue::Text(Text(value.into())))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(ParameterValue::Text(Text(value.to_owned().into())))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ParameterValue<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ParametersVisitor;

impl<'de> Visitor<'de> for ParametersVisitor {
    type Value = Parameters<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of parameters")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Parameters::default();
        while let Some((key, value)) = map.next_entry::<Text<'de>, ParameterValue<'de>>()? {
            if found.get(&key).is_some() {
                return Err(A::Error::custom(format_args!("duplicate parameter `{}`", &*key)));
            }
            if found.0.len() == MAX_PARAMETERS {
                return Err(A::Error::custom(format_args!(
                    "more than {MAX_PARAMETERS} parameters"
                )));
            }
            found.0.push((key, value));
        }
        Ok(found)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Parameters<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ParametersVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_kind() {
        let text = r#"{"a":true,"b":3,"c":-3,"d":0.5,"e":"x","f\n":"y\n"}"#;
        let read: Parameters<'_> = serde_json::from_str(text).unwrap();
        assert_eq!(read.get("a"), Some(&ParameterValue::Bool(true)));
        assert_eq!(read.get("b"), Some(&ParameterValue::Uint(3)));
        assert_eq!(read.get("c"), Some(&ParameterValue::Int(-3)));
        assert_eq!(read.get("d"), Some(&ParameterValue::Float(0.5)));
        assert_eq!(read.get("e"), Some(&ParameterValue::Text(Text("x".into()))));
        assert_eq!(read.get("f\n"), Some(&ParameterValue::Text(Text("y\n".into()))));
        assert_eq!(read.get("g"), None);
    }

    #[test]
    fn duplicates_nesting_and_crowds_are_refused() {
        for bad in [r#"{"a":1,"a":1}"#, r#"{"a":{}}"#, r#"{"a":[]}"#, r#"{"a":null}"#, "[]", "1"] {
            assert!(serde_json::from_str::<Parameters<'_>>(bad).is_err(), "{bad}");
        }
        let many: Vec<String> = (0..=MAX_PARAMETERS).map(|i| format!("\"{i}\":1")).collect();
        let many = format!("{{{}}}", many.join(","));
        assert!(serde_json::from_str::<Parameters<'_>>(&many).is_err());
    }
}
