// Package report presents the results of the harness: as a table for a terminal, as Markdown for documents, as JSON
// for programs, and as an SVG: dots with whiskers, or a timeline.
//
// All of them are made from a harness.Report alone: a report that is read back from its JSON gives the same table.
// So the tables in documents are generated from result files that are committed: a test detects when text and file have
// drifted apart, and make bench-docs, which runs that test, brings the text up to date.
package report
