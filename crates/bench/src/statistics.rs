//! Medians, how far to trust them, and whether they are what was to be reached.

/// Resamples of a bootstrap.
const RESAMPLES: usize = 10_000;
/// The same figures give the same interval.
const SEED: u64 = 106;

/// The middle value; 0 of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let at = |position: usize| sorted.get(position).copied().unwrap_or_default();
    if sorted.len() % 2 == 1 {
        at(middle)
    } else {
        (at(middle.saturating_sub(1)) + at(middle)) / 2.0
    }
}

/// The interval in which the median lies with 95 percent confidence (percentile bootstrap).
pub(crate) fn interval(values: &[f64]) -> (f64, f64) {
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let sample: Vec<f64> = (0..values.len())
                .filter_map(|_| values.get(random.usize(0..values.len())).copied())
                .collect();
            median(&sample)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let at = |position: usize| medians.get(position).copied().unwrap_or_default();
    (at(RESAMPLES / 40), at(RESAMPLES - RESAMPLES / 40 - 1))
}

/// Whether a figure is at most what was to be reached, in words.
pub(crate) fn verdict(figure: f64, most: f64) -> String {
    let word = if figure <= most { "met" } else { "missed" };
    format!("target {most} {word}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn a_target_is_met_by_a_figure_that_is_not_above_it() {
        assert_eq!(verdict(1.3, 1.3), "target 1.3 met");
        assert_eq!(verdict(1.31, 1.3), "target 1.3 missed");
        assert_eq!(verdict(f64::NAN, 6.0), "target 6 missed");
    }

    #[test]
    fn the_interval_holds_the_median_and_is_narrow_where_values_agree() {
        assert_eq!(interval(&[1.5; 30]), (1.5, 1.5));
        let values: Vec<f64> = (0..31).map(f64::from).collect();
        let (low, high) = interval(&values);
        assert!(low < 15.0 && 15.0 < high && high - low < 16.0, "{low} to {high}");
    }
}
