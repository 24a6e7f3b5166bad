// Package report presents the results of the harness: as a table for a terminal, as Markdown for documents, as JSON
// and CSV for programs, as one self-contained HTML file with plots, and as an SVG with bars.
//
// All of them are made from a harness.Report alone: a report that is read back from its JSON gives the same table.
// So the tables in documents are generated from result files that are committed: a test detects when text and file have
// drifted apart, and make bench-docs, which runs that test, brings the text up to date.
//
// uPlot 1.6.32 (MIT licence, in assets/) draws the plots. The HTML file contains it.
package report
