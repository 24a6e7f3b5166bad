// Package report shows what the harness found: as a table for a terminal, as Markdown for
// documents, as JSON and CSV for programs, as one HTML file with plots that needs nothing else, and
// as an SVG with bars.
//
// All of them are made from a harness.Report, and nothing else: a report that is read back from its JSON
// gives the same table. So the tables in documents are generated from result files that are
// committed (Fill), and a test says when text and file have drifted apart.
//
// The plots are drawn by uPlot 1.6.32 (MIT licence, in assets/), which the HTML file carries inside.
package report
