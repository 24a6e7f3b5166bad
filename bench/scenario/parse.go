package scenario

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxFile is more than any scenario needs, in bytes.
const maxFile = 1 << 20

// A Problem is one thing that is wrong with a scenario.
type Problem struct {
	Line int    // from 1; 0: of the whole
	Path string // "faults[1].node"
	Text string
}

// An Error is everything that is wrong with a scenario.
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
	// The YAML library panics on some files that are no YAML; fuzzing found them.
	defer func() {
		if p := recover(); p != nil {
			s, err = nil, &Error{name, []Problem{{Text: fmt.Sprintf("it cannot be read as YAML: %v", p)}}}
		}
	}()
	if len(b) > maxFile {
		return nil, &Error{name, []Problem{{Text: fmt.Sprintf("%d bytes; a scenario has at most %d", len(b), maxFile)}}}
	}
	file, err := parser.ParseBytes(b, 0)
	if err != nil {
		return nil, &Error{name, []Problem{positioned(err)}}
	}
	if len(file.Docs) > 1 {
		return nil, &Error{name, []Problem{{Text: "several documents (---) in one file: a scenario is one"}}}
	}
	s = &Scenario{}
	if err := yaml.NewDecoder(bytes.NewReader(b), yaml.Strict()).Decode(s); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, &Error{name, []Problem{{Text: "there is nothing in it"}}}
		}
		return nil, &Error{name, []Problem{positioned(err)}}
	}
	s.fill()
	c := checker{file: file}
	c.scenario(s)
	if len(c.problems) > 0 {
		return nil, &Error{name, c.problems}
	}
	return s, nil
}

// positioned takes the line out of the library's error, whose text is its first line.
func positioned(err error) Problem {
	p := Problem{Text: err.Error()}
	var y yaml.Error
	var u *unitError
	if errors.As(err, &u) {
		p.Text, p.Line = u.Error(), u.line
	} else if errors.As(err, &y) {
		p.Text = y.GetMessage()
		if t := y.GetToken(); t != nil && t.Position != nil {
			p.Line = t.Position.Line
		}
	}
	p.Text, _, _ = strings.Cut(p.Text, "\n")
	return p
}

// line finds where a path is written; if it is not, where what it is a part of is.
func line(file *ast.File, path string) int {
	for path != "" {
		if p, err := yaml.PathString("$." + path); err == nil {
			if n, err := p.FilterFile(file); err == nil && n != nil && n.GetToken() != nil {
				return n.GetToken().Position.Line
			}
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return 0
}

// YAML writes the scenario out in full, defaults included.
func (s *Scenario) YAML() ([]byte, error) { return yaml.Marshal(s) }
