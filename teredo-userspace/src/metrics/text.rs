//! The formats of the metrics: OpenMetrics, and the text format that Prometheus had before.

/// A format of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// The text format, version 0.0.4.
    Text,
}

impl Format {
    /// Both formats.
    pub const ALL: [Self; 2] = [Self::OpenMetrics, Self::Text];

    /// Returns the media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Returns the format for a request with this header `Accept`: OpenMetrics if that is asked for at least as
    /// much as the other, which every reader understands.
    #[must_use]
    pub fn accepted(accept: Option<&str>) -> Self {
        let weight = |media: &[&str]| {
            let ranges = accept.unwrap_or_default().split(',');
            let weights = ranges.filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let name = parts.next()?.to_ascii_lowercase();
                let weight = parts.find_map(|part| part.strip_prefix("q="));
                let weight = weight.map_or(Some(1.0), |weight| weight.parse().ok())?;
                media.contains(&&*name).then_some(weight)
            });
            weights.fold(0.0, f64::max)
        };
        let openmetrics = weight(&["application/openmetrics-text"]);
        if openmetrics > 0.0 && openmetrics >= weight(&["text/plain"]) {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// Returns metrics, given as OpenMetrics, in this format.
    #[must_use]
    pub fn convert(self, openmetrics: String) -> String {
        match self {
            Self::OpenMetrics => openmetrics,
            Self::Text => to_text(&openmetrics),
        }
    }
}

/// Returns the text format of metrics. There, the name of a counter has its suffix in the comments, too.
fn to_text(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    // The type of a family follows its help.
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(of) = line.strip_prefix("# HELP ") {
            help = of.split_once(' ');
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|of| of.split_once(' '))
        {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, help)) = help.take() {
                text.push_str(&format!("# HELP {name}{suffix} {help}\n"));
            }
            text.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_chooses() {
        for (accept, format) in [
            (None, Format::Text),
            (Some("*/*"), Format::Text),
            (Some("text/plain;version=0.0.4"), Format::Text),
            (Some("application/openmetrics-text"), Format::OpenMetrics),
            (
                Some(
                    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                     text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                ),
                Format::OpenMetrics,
            ),
            (
                Some("application/openmetrics-text;q=0.1, text/plain"),
                Format::Text,
            ),
            (Some("application/openmetrics-text;q=0"), Format::Text),
            (Some("application/openmetrics-text;q=x"), Format::Text),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept:?}");
        }
    }

    #[test]
    fn a_counter_has_its_suffix_everywhere() {
        let openmetrics = "# HELP a_b Things.\n# TYPE a_b counter\n# UNIT a_b b\na_b_total 1\n\
                           # HELP c Levels.\n# TYPE c gauge\nc 2\n# EOF\n";
        let text = "# HELP a_b_total Things.\n# TYPE a_b_total counter\na_b_total 1\n\
                    # HELP c Levels.\n# TYPE c gauge\nc 2\n";
        assert_eq!(Format::Text.convert(openmetrics.to_owned()), text);
        assert_eq!(
            Format::OpenMetrics.convert(openmetrics.to_owned()),
            openmetrics
        );
    }
}
