package report

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// marker begins what is generated; the path is of a result file, as seen from the document.
func marker() *regexp.Regexp {
	return regexp.MustCompile(`(?m)^<!-- bench:(\S+) -->\n`)
}

// closing ends it.
const closing = "<!-- /bench -->"

// Fill returns a document's text with what stands between its markers made anew from the result
// files that they name:
//
//	<!-- bench:results/storm.json -->
//	(generated: a table as Text writes it)
//	<!-- /bench -->
//
// Paths are relative to dir, the document's directory. The rest of the text stays as it is. It is
// an error if a marker is not closed, or there is none.
func Fill(text []byte, dir string) ([]byte, error) {
	var out bytes.Buffer
	found, begins := 0, marker()
	for {
		at := begins.FindSubmatchIndex(text)
		if at == nil {
			break
		}
		found++
		path := string(text[at[2]:at[3]])
		end := bytes.Index(text[at[1]:], []byte(closing))
		if end < 0 {
			return nil, fmt.Errorf("report: the marker of %s is not closed with %s", path, closing)
		}
		r, err := ReadJSON(filepath.Join(dir, path))
		if err != nil {
			return nil, err
		}
		out.Write(text[:at[1]])
		out.WriteByte('\n')
		if err := Text(&out, r); err != nil {
			return nil, err
		}
		if r.Command != "" {
			fmt.Fprintf(&out, "\nMade by `%s`, %s.\n", strings.ReplaceAll(r.Command, "`", "'"), r.Began.Format("2006-01-02"))
		}
		out.WriteByte('\n')
		text = text[at[1]+end:]
	}
	if found == 0 {
		return nil, fmt.Errorf("report: there is no marker <!-- bench:file.json --> in the document")
	}
	out.Write(text)
	return out.Bytes(), nil
}

// FillFile does so with a file, and reports whether it was out of date. With write it is
// brought up to date.
func FillFile(path string, write bool) (stale bool, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return false, fmt.Errorf("report: %w", err)
	}
	filled, err := Fill(text, filepath.Dir(path))
	if err != nil || bytes.Equal(text, filled) {
		return false, err
	}
	if !write {
		return true, nil
	}
	return true, os.WriteFile(path, filled, 0o644)
}
