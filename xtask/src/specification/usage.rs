//! The code and the tests behind each number.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    citations::{By, Citation},
    number::Number,
};

/// The citations of all numbers, grouped.
#[derive(Debug, Default)]
pub struct Usage<'c>(BTreeMap<Number, Citers<'c>>);

/// Everything that cites one number.
#[derive(Debug, Default)]
pub struct Citers<'c> {
    /// Files of the product.
    pub files: BTreeSet<&'c str>,
    /// Names of tests.
    pub tests: BTreeSet<&'c str>,
    /// Files with tests, or other test code, that cite it.
    pub test_files: BTreeSet<&'c str>,
}

impl<'c> Usage<'c> {
    /// Groups citations by number.
    pub fn of(citations: &'c [Citation]) -> Self {
        let mut usage = Self::default();
        for citation in citations {
            let citers = usage.0.entry(citation.number).or_default();
            let file = citation.place.file.as_str();
            match &citation.by {
                By::Product => drop(citers.files.insert(file)),
                By::Test(name) => {
                    citers.tests.insert(name);
                    citers.test_files.insert(file);
                }
                By::TestCode => drop(citers.test_files.insert(file)),
                By::Other => {}
            }
        }
        usage
    }

    /// Everything that cites a number.
    pub fn citers(&self, number: Number) -> &Citers<'c> {
        const NONE: &Citers<'_> = &Citers {
            files: BTreeSet::new(),
            tests: BTreeSet::new(),
            test_files: BTreeSet::new(),
        };
        self.0.get(&number).unwrap_or(NONE)
    }
}
