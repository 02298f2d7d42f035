//! A serde deserializer over a TOML document that keeps positions and knows the valid keys.
//!
//! `toml`'s own deserializer reports an unknown key only as text. Here the error type takes the key and the
//! valid ones as values, so that the nearest can be suggested without reading an error's text.

use std::fmt;

use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor, value::StringDeserializer,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::told;

/// A value that does not fit, with the position of the nearest enclosing key or value.
#[derive(Debug)]
pub(super) struct ValueError {
    message: String,
    hint: Option<String>,
    offset: Option<usize>,
}

impl ValueError {
    /// Byte offset, message and hint.
    pub(super) fn into_parts(self) -> (usize, String, Option<String>) {
        (self.offset.unwrap_or(0), self.message, self.hint)
    }

    fn new(message: String) -> Self {
        Self {
            message,
            hint: None,
            offset: None,
        }
    }

    /// Sets the position unless a more exact one is known.
    fn at(mut self, offset: usize) -> Self {
        self.offset.get_or_insert(offset);
        self
    }

    fn unknown(what: &str, given: &str, valid: &'static [&'static str]) -> Self {
        let nearest = valid
            .iter()
            .map(|name| (strsim::damerau_levenshtein(given, name), name))
            .min()
            .filter(|(distance, name)| *distance <= name.len().max(given.len()) / 2);
        let question = nearest
            .map(|(_, name)| format!("did you mean `{name}`? "))
            .unwrap_or_default();
        Self {
            message: format!("unknown {what} `{given}`"),
            hint: Some(format!("{question}valid here: {}", valid.join(", "))),
            offset: None,
        }
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ValueError {}

impl de::Error for ValueError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::unknown("key", field, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::unknown("value", variant, expected)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("the key `{field}` is missing"))
    }
}

/// The deserializer of a whole document.
pub(super) fn root(table: Spanned<DeTable<'_>>) -> Node<'_> {
    let offset = table.span().start;
    Node {
        offset,
        value: DeValue::Table(table.into_inner()),
    }
}

/// One value of the document with its byte offset.
pub(super) struct Node<'t> {
    offset: usize,
    value: DeValue<'t>,
}

impl<'t> From<Spanned<DeValue<'t>>> for Node<'t> {
    fn from(spanned: Spanned<DeValue<'t>>) -> Self {
        Self {
            offset: spanned.span().start,
            value: spanned.into_inner(),
        }
    }
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        let offset = self.offset;
        match self.value {
            DeValue::String(text) => visitor.visit_string(text.into_owned()),
            DeValue::Boolean(flag) => visitor.visit_bool(flag),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(integer) => visitor.visit_i64(integer),
                Err(_overflow) => Err(de::Error::invalid_value(
                    Unexpected::Other(number.as_str()),
                    &visitor,
                )),
            },
            DeValue::Float(number) => match number.as_str().parse() {
                Ok(float) => visitor.visit_f64(float),
                Err(_shape) => Err(de::Error::invalid_value(
                    Unexpected::Other(number.as_str()),
                    &visitor,
                )),
            },
            DeValue::Datetime(time) => visitor.visit_string(time.to_string()),
            DeValue::Array(items) => {
                let items: Vec<_> = items.into_iter().collect();
                visitor.visit_seq(Items(items.into_iter()))
            }
            DeValue::Table(table) => {
                let entries: Vec<_> = table.into_iter().collect();
                visitor.visit_map(Entries {
                    rest: entries.into_iter(),
                    value: None,
                    key_offset: offset,
                })
            }
        }
        .inspect(|_| told::at(offset))
        .map_err(|error| error.at(offset))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self)
    }

    /// An enum is a string (`kind = "registry"`) or a table with the variant as its one key.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        let offset = self.offset;
        match self.value {
            DeValue::String(text) => visitor.visit_enum(text.into_owned().into_deserializer()),
            DeValue::Table(table) if table.len() == 1 => {
                let entry = table
                    .into_iter()
                    .next()
                    .ok_or_else(|| ValueError::new(format!("no {name} given")))?;
                visitor.visit_enum(Variant {
                    name: entry.0.into_inner().into_owned(),
                    value: entry.1.into(),
                })
            }
            other @ (DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_)) => Err(ValueError::new(format!(
                "{} given, expected one of {}",
                other.type_str(),
                variants.join(", ")
            ))),
        }
        .map_err(|error| error.at(offset))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Items<'t>(std::vec::IntoIter<Spanned<DeValue<'t>>>);

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = ValueError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, ValueError> {
        self.0
            .next()
            .map(|item| seed.deserialize(Node::from(item)))
            .transpose()
    }
}

type Entry<'t> = (Spanned<std::borrow::Cow<'t, str>>, Spanned<DeValue<'t>>);

struct Entries<'t> {
    rest: std::vec::IntoIter<Entry<'t>>,
    value: Option<Node<'t>>,
    key_offset: usize,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = ValueError;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, ValueError> {
        let Some((key, value)) = self.rest.next() else {
            return Ok(None);
        };
        self.key_offset = key.span().start;
        self.value = Some(value.into());
        let key: StringDeserializer<ValueError> = key.into_inner().into_owned().into_deserializer();
        seed.deserialize(key)
            .map(Some)
            .map_err(|error| error.at(self.key_offset))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, ValueError> {
        let value = self
            .value
            .take()
            .ok_or_else(|| ValueError::new("a value was asked for before its key".into()))?;
        seed.deserialize(value).map_err(|error| error.at(self.key_offset))
    }
}

struct Variant<'t> {
    name: String,
    value: Node<'t>,
}

impl<'de, 't> EnumAccess<'de> for Variant<'t> {
    type Error = ValueError;
    type Variant = Node<'t>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Node<'t>), ValueError> {
        let name: StringDeserializer<ValueError> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self.value))
    }
}

impl<'de> VariantAccess<'de> for Node<'_> {
    type Error = ValueError;

    fn unit_variant(self) -> Result<(), ValueError> {
        Err(ValueError::new("a table was given where a plain value is expected".into()).at(self.offset))
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, ValueError> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, ValueError> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        self.deserialize_any(visitor)
    }
}
