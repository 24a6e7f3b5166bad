package report

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/weircache/weir/bench"
)

// marker matches the start of generated text. Its path is that of a result file, relative to the document.
func marker() *regexp.Regexp {
	return regexp.MustCompile(`(?m)^<!-- (bench|speed):(\S+) -->\n`)
}

// closing ends generated text.
const closing = "<!-- /bench -->"

// fill returns a document's text with the parts between its markers regenerated from the result files that the
// markers name:
//
//	<!-- bench:results/storm.json -->
//	(generated: a table as Text writes it)
//	<!-- /bench -->
//
// A marker <!-- speed:results/speed.json --> stands for the table of make bench in the same way. Paths are
// relative to dir, the document's directory. The rest of the text stays as it is. It returns an error if a marker
// is not closed, or if there are none.
func fill(text []byte, dir string) ([]byte, error) {
	var out bytes.Buffer
	found, begins := 0, marker()
	for {
		at := begins.FindSubmatchIndex(text)
		if at == nil {
			break
		}
		found++
		kind, path := string(text[at[2]:at[3]]), string(text[at[4]:at[5]])
		end := bytes.Index(text[at[1]:], []byte(closing))
		if end < 0 {
			return nil, fmt.Errorf("report: the marker of %s is not closed with %s", path, closing)
		}
		out.Write(text[:at[1]])
		out.WriteByte('\n')
		generate := scenarioTable
		if kind == "speed" {
			generate = speedTable
		}
		if err := generate(&out, filepath.Join(dir, path)); err != nil {
			return nil, err
		}
		out.WriteByte('\n')
		text = text[at[1]+end:]
	}
	if found == 0 {
		return nil, fmt.Errorf("report: there is no marker <!-- bench:file.json --> or <!-- speed:file.json --> in the document")
	}
	out.Write(text)
	return out.Bytes(), nil
}

// scenarioTable writes the result of a run of a scenario.
func scenarioTable(out *bytes.Buffer, path string) error {
	r, err := ReadJSON(path)
	if err != nil {
		return err
	}
	if err := Text(out, r); err != nil {
		return err
	}
	if r.Command != "" {
		fmt.Fprintf(out, "\nMade by `%s`, %s.\n", strings.ReplaceAll(r.Command, "`", "'"), r.Began.Format("2006-01-02"))
	}
	return nil
}

// speedTable writes the table of make bench, or says that there is none.
func speedTable(out *bytes.Buffer, path string) error {
	t, err := bench.ReadTable(path)
	if errors.Is(err, os.ErrNotExist) {
		out.WriteString("It is not measured at this revision. `make results` measures it.\n")
		return nil
	}
	if err != nil {
		return err
	}
	_, err = t.WriteTo(out)
	return err
}

// fillFile does the same with a file, and reports whether the file was out of date. With write it updates the file.
func fillFile(path string, write bool) (stale bool, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return false, fmt.Errorf("report: %w", err)
	}
	filled, err := fill(text, filepath.Dir(path))
	if err != nil || bytes.Equal(text, filled) {
		return false, err
	}
	if !write {
		return true, nil
	}
	return true, os.WriteFile(path, filled, 0o644)
}
