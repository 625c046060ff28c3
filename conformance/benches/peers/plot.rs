//! The ratios as bars: shorter is better, the line is containerd.

use std::path::Path;

use anyhow::{Context, anyhow};
use plotters::prelude::*;

use crate::samples::{Measure, Results};
use crate::subject::BASE;

const WIDTH: u32 = 900;
/// Of one measure.
const ROW: u32 = 40;
const LEAST: f64 = 0.003;
const MOST: f64 = 3.0;
const COLOURS: [RGBColor; 3] = [
    RGBColor(224, 153, 72),
    RGBColor(62, 116, 166),
    RGBColor(110, 160, 90),
];

pub(crate) fn draw(results: &Results, path: &Path) -> anyhow::Result<()> {
    let measures: Vec<Measure> = Measure::ALL
        .into_iter()
        .filter(|measure| results.median(*measure, BASE).is_some())
        .collect();
    let height = u32::try_from(measures.len())? * ROW + 90;
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    bars(&area, results, &measures).map_err(|error| anyhow!("draw the plot: {error}"))?;
    area.present()
        .with_context(|| format!("write {}", path.display()))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn bars(
    area: &Area<'_>,
    results: &Results,
    measures: &[Measure],
) -> Result<(), Box<dyn std::error::Error>> {
    area.fill(&WHITE)?;
    #[expect(clippy::cast_precision_loss)]
    let rows = measures.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(
            "ratio to containerd + runc (less is better)",
            ("sans-serif", 16),
        )
        .x_label_area_size(30)
        .y_label_area_size(290)
        .margin(10)
        .build_cartesian_2d((LEAST..MOST).log_scale(), 0.0..rows)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(measures.len() * 2 + 1)
        .y_label_formatter(&|y| label(measures, *y))
        .x_label_formatter(&|x| format!("{x}"))
        .draw()?;
    let others: Vec<_> = results
        .runtimes
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| *name != BASE)
        .collect();
    for (index, runtime) in others.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let boxes = rectangles(results, measures, runtime, index, others.len(), colour);
        chart
            .draw_series(boxes)?
            .label(*runtime)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
    }
    chart.draw_series([PathElement::new(vec![(1.0, 0.0), (1.0, rows)], BLACK)])?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    Ok(())
}

#[expect(clippy::cast_precision_loss)]
fn rectangles(
    results: &Results,
    measures: &[Measure],
    runtime: &'static str,
    index: usize,
    count: usize,
    colour: RGBColor,
) -> Vec<Rectangle<(f64, f64)>> {
    let thickness = 0.8 / count as f64;
    let rectangle = |(row, measure): (usize, &Measure)| {
        let base = results.median(*measure, BASE)?;
        let ratio = (results.median(*measure, runtime)? / base).clamp(LEAST, MOST);
        // The first measure stands at the top.
        let top = (measures.len() - row) as f64 - 0.1 - thickness * index as f64;
        let corners = [(LEAST, top - thickness), (ratio, top)];
        Some(Rectangle::new(corners, colour.filled()))
    };
    measures.iter().enumerate().filter_map(rectangle).collect()
}

/// At the middle of a row, the name of its measure.
fn label(measures: &[Measure], y: f64) -> String {
    if (y.fract() - 0.5).abs() > 0.01 {
        return String::new();
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let row = measures.len().checked_sub(y.ceil() as usize);
    row.and_then(|row| measures.get(row))
        .map_or_else(String::new, |measure| measure.name().to_owned())
}
