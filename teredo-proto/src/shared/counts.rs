//! Counts of what happened, one for each value of an enumeration.

use std::{
    fmt::Debug,
    ops::{Index, IndexMut},
};

/// An enumeration whose values have a name in statistics.
pub trait Named: Copy + 'static {
    /// Every value, in the order of their numbers.
    const ALL: &'static [Self];
    /// A count for each value.
    #[doc(hidden)]
    type Each<C: Count>: AsRef<[C]> + AsMut<[C]> + Copy + Debug + Eq;

    /// Returns the name in statistics; it never changes.
    fn reason(self) -> &'static str;

    #[doc(hidden)]
    fn number(self) -> usize;

    #[doc(hidden)]
    fn each<C: Count>() -> Self::Each<C>;
}

/// What a [`Counts`] holds for each value: a number of packets, or [`Traffic`].
///
/// [`Traffic`]: super::statistics::Traffic
pub trait Count: Copy + Debug + Default + Eq {}

impl Count for u64 {}

/// A count for each value of an enumeration, which is its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts<T: Named, C: Count = u64>(T::Each<C>);

impl<T: Named, C: Count> Counts<T, C> {
    /// Returns every value with its count, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (T, C)> {
        let counts = self.0.as_ref().iter().copied();
        T::ALL.iter().copied().zip(counts)
    }
}

impl<T: Named, C: Count> Default for Counts<T, C> {
    fn default() -> Self {
        Self(T::each())
    }
}

impl<T: Named, C: Count> Index<T> for Counts<T, C> {
    type Output = C;

    fn index(&self, value: T) -> &C {
        &self.0.as_ref()[value.number()]
    }
}

impl<T: Named, C: Count> IndexMut<T> for Counts<T, C> {
    fn index_mut(&mut self, value: T) -> &mut C {
        &mut self.0.as_mut()[value.number()]
    }
}

/// Defines an enumeration whose values have a name in statistics.
macro_rules! named {
    (
        $(#[doc = $type_doc:literal])+ $type:ident {
            $($(#[doc = $doc:literal])+ $name:ident = $reason:literal,)+
        }
    ) => {
        $(#[doc = $type_doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $type {
            $($(#[doc = $doc])+ $name,)+
        }

        impl $type {
            /// Every value, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Returns the name in statistics; it never changes.
            pub const fn reason(self) -> &'static str {
                match self { $(Self::$name => $reason,)+ }
            }
        }

        impl $crate::shared::counts::Named for $type {
            const ALL: &'static [Self] = Self::ALL;
            type Each<C: $crate::shared::counts::Count> = [C; Self::ALL.len()];

            fn reason(self) -> &'static str {
                self.reason()
            }

            fn number(self) -> usize {
                self as usize
            }

            fn each<C: $crate::shared::counts::Count>() -> Self::Each<C> {
                [C::default(); Self::ALL.len()]
            }
        }
    };
}

pub(crate) use named;

/// Checks that names are unique, and words of lower case with hyphens between them.
#[cfg(test)]
pub(crate) fn assert_names(names: &[&str]) {
    for (index, name) in names.iter().enumerate() {
        assert!(!names[..index].contains(name), "{name} is there twice");
        let is_word = |word: &str| {
            let mut octets = word.bytes();
            !word.is_empty() && octets.all(|octet| matches!(octet, b'a'..=b'z' | b'0'..=b'9'))
        };
        assert!(name.split('-').all(is_word), "{name}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    named! {
        /// Three values.
        Letter {
            /// The first.
            A = "a",
            /// The second.
            B = "b",
            /// The third.
            C = "c",
        }
    }

    #[test]
    fn every_value_has_its_own_count() {
        let mut counts = Counts::<Letter>::default();
        for (index, &letter) in Letter::ALL.iter().enumerate() {
            counts[letter] += index as u64 + 1;
        }
        let all: Vec<_> = counts
            .iter()
            .map(|(letter, count)| (letter.reason(), count))
            .collect();
        assert_eq!(all, [("a", 1), ("b", 2), ("c", 3)]);
        assert_eq!(counts[Letter::B], 2);
    }
}
