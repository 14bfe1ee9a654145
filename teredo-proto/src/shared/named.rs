//! Enumerations whose values have a name in statistics.

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
            pub(crate) const COUNT: usize = Self::ALL.len();

            /// The name in statistics; it never changes.
            pub const fn reason(self) -> &'static str {
                match self { $(Self::$name => $reason,)+ }
            }
        }
    };
}

pub(crate) use named;
