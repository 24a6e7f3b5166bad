package scenario

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFile is larger than any scenario, in bytes.
const maxFile = 1 << 20

// A Problem is one error in a scenario.
type Problem struct {
	Line int    // from 1; 0: the whole file
	Path string // "faults[1].node"
	Text string
}

// An Error is the list of all errors in a scenario.
type Error struct {
	Name     string // of the file
	Problems []Problem
}

// Error has a line for each problem.
func (e *Error) Error() string {
	var lines []string
	for _, p := range e.Problems {
		at := e.Name
		if p.Line > 0 {
			at = fmt.Sprintf("%s:%d", e.Name, p.Line)
		}
		if p.Path != "" {
			at += ": " + p.Path
		}
		lines = append(lines, at+": "+p.Text)
	}
	return strings.Join(lines, "\n")
}

// ReadFile reads and checks a scenario.
func ReadFile(path string) (*Scenario, error) {
	f, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("scenario: %w", err)
	}
	if f.Size() > maxFile {
		return nil, fmt.Errorf("scenario: %s has %d bytes; a scenario has at most %d", path, f.Size(), maxFile)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("scenario: %w", err)
	}
	return Parse(path, b)
}

// Parse reads a scenario, fills in the defaults and checks it. The error is an *Error that
// names every problem with its line.
func Parse(name string, b []byte) (s *Scenario, err error) {
	// YAML libraries panic on some files that are not YAML; fuzzing found some.
	defer func() {
		if p := recover(); p != nil {
			s, err = nil, &Error{name, []Problem{{Text: fmt.Sprintf("it cannot be read as YAML: %v", p)}}}
		}
	}()
	if len(b) > maxFile {
		return nil, &Error{name, []Problem{{Text: fmt.Sprintf("%d bytes; a scenario has at most %d", len(b), maxFile)}}}
	}
	var file yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&file); err != nil {
		return nil, &Error{name, problemsOf(err)}
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, &Error{name, []Problem{{Text: "several documents (---) in one file: a scenario is one"}}}
	}
	s = &Scenario{}
	d = yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(s); err != nil {
		return nil, &Error{name, problemsOf(err)}
	}
	s.fill()
	c := checker{file: &file}
	c.scenario(s)
	if len(c.problems) > 0 {
		return nil, &Error{name, c.problems}
	}
	return s, nil
}

// problemsOf extracts the lines from the text of the library's error.
func problemsOf(err error) []Problem {
	var u *unitError
	var t *yaml.TypeError
	switch {
	case errors.Is(err, io.EOF):
		return []Problem{{Text: "there is nothing in it"}}
	case errors.As(err, &u):
		return []Problem{{Line: u.line, Text: u.Error()}}
	case !errors.As(err, &t):
		return []Problem{problemOf(strings.TrimPrefix(err.Error(), "yaml: "))}
	}
	var all []Problem
	for _, text := range t.Errors {
		all = append(all, problemOf(text))
	}
	return all
}

// problemOf parses "line 5: field cluter not found in type scenario.Scenario".
func problemOf(text string) Problem {
	p := Problem{}
	p.Text, _, _ = strings.Cut(text, "\n")
	if at, rest, ok := strings.Cut(p.Text, ": "); ok && strings.HasPrefix(at, "line ") {
		if n, err := strconv.Atoi(at[len("line "):]); err == nil {
			p.Line, p.Text = n, rest
		}
	}
	if field, _, ok := strings.Cut(p.Text, " not found in type "); ok {
		p.Text = fmt.Sprintf("unknown field %q", strings.TrimPrefix(field, "field "))
	}
	return p
}

// line returns the line of a path, or of its closest parent that is present; 0: nowhere.
func line(file *yaml.Node, path string) int {
	if len(file.Content) == 0 {
		return 0
	}
	n, at := file.Content[0], 0
	for _, word := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		for n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		var next *yaml.Node
		if i, err := strconv.Atoi(word); err == nil && n.Kind == yaml.SequenceNode && i < len(n.Content) {
			next = n.Content[i]
			at = next.Line
		}
		for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == word {
				next = n.Content[i+1]
				at = n.Content[i].Line
			}
		}
		if next == nil {
			break
		}
		n = next
	}
	return at
}

// YAML writes the scenario out in full, defaults included.
func (s *Scenario) YAML() ([]byte, error) { return yaml.Marshal(s) }
