//! How numbers are written down so that a restart continues with exactly the same bits.
//!
//! JSON has no infinities, and the logarithm of an empty purse is one. Finite numbers are written as numbers (shortest
//! form that reads back to the same bits), the others as the strings `"inf"`, `"-inf"` and `"nan"`. Use with
//! `#[serde(with = "exact")]` on `[f64; N]`. Needs a self-describing format.

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{SerializeTuple, Serializer};
use serde::{Deserialize, Serialize};

/// Writes an array of numbers, infinities included.
pub fn serialize<S: Serializer, const N: usize>(
    values: &[f64; N],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut tuple = serializer.serialize_tuple(N)?;
    for value in values {
        tuple.serialize_element(&Number(*value))?;
    }
    tuple.end()
}

/// Reads what [`serialize`] wrote; fails on any other length.
pub fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
    deserializer: D,
) -> Result<[f64; N], D::Error> {
    deserializer.deserialize_tuple(N, ArrayVisitor::<N>)
}

struct Number(f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            f64::INFINITY => serializer.serialize_str("inf"),
            f64::NEG_INFINITY => serializer.serialize_str("-inf"),
            value if value.is_nan() => serializer.serialize_str("nan"),
            value => serializer.serialize_f64(value),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor).map(Number)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = f64;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a number, \"inf\", \"-inf\" or \"nan\"")
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<f64, E> {
        Ok(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
        match text {
            "inf" => Ok(f64::INFINITY),
            "-inf" => Ok(f64::NEG_INFINITY),
            "nan" => Ok(f64::NAN),
            other => Err(E::custom(format_args!("{other:?} is not a number"))),
        }
    }
}

struct ArrayVisitor<const N: usize>;

impl<'de, const N: usize> Visitor<'de> for ArrayVisitor<N> {
    type Value = [f64; N];

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{N} numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<[f64; N], A::Error> {
        let mut values = [0.0; N];
        for (index, value) in values.iter_mut().enumerate() {
            let Some(Number(number)) = sequence.next_element()? else {
                return Err(A::Error::invalid_length(index, &self));
            };
            *value = number;
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Serialize, Deserialize)]
    struct Holder(#[serde(with = "super")] [f64; 4]);

    #[test]
    fn infinities_and_signed_zero_survive() {
        let values = [f64::NEG_INFINITY, -0.0, f64::INFINITY, 1.5];
        let text = serde_json::to_string(&Holder(values)).unwrap();
        assert_eq!(text, r#"["-inf",-0.0,"inf",1.5]"#);
        let Holder(back) = serde_json::from_str(&text).unwrap();
        assert_eq!(back.map(f64::to_bits), values.map(f64::to_bits));
    }

    #[test]
    fn wrong_lengths_and_words_are_refused() {
        assert!(serde_json::from_str::<Holder>("[1,2,3]").is_err());
        assert!(serde_json::from_str::<Holder>("[1,2,3,4,5]").is_err());
        assert!(serde_json::from_str::<Holder>(r#"[1,2,3,"much"]"#).is_err());
    }

    proptest! {
        #[test]
        fn every_double_keeps_its_bits(bits in any::<[u64; 4]>()) {
            let values = bits.map(f64::from_bits);
            let Holder(back) = serde_json::from_str(&serde_json::to_string(&Holder(values)).unwrap()).unwrap();
            for (before, after) in values.into_iter().zip(back) {
                prop_assert!(before.to_bits() == after.to_bits() || (before.is_nan() && after.is_nan()));
            }
        }
    }
}
