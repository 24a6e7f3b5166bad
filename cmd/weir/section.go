package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// A problem is one error in a configuration file.
type problem struct {
	line int
	text string
}

// problems collects the errors of a configuration file, so that all of them are reported at once.
type problems struct {
	file string
	list []problem
}

func (p *problems) add(line int, format string, args ...any) {
	p.list = append(p.list, problem{line, fmt.Sprintf(format, args...)})
}

// err returns all problems, sorted by line, or nil if there are none.
func (p *problems) err() error {
	if len(p.list) == 0 {
		return nil
	}
	slices.SortStableFunc(p.list, func(a, b problem) int { return a.line - b.line })
	var b strings.Builder
	for i, q := range p.list {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s:%d: %s", p.file, q.line, q.text)
	}
	return usageError(b.String())
}

// A section is one mapping of a configuration file. Each of its methods takes one name; end reports the names that were
// not taken.
type section struct {
	path     string // the names that lead to it, for messages
	line     int
	values   map[string]*yaml.Node
	lines    map[string]int
	known    []string
	problems *problems
}

// newSection reads a mapping. A nil or empty node counts as an empty mapping.
func newSection(node *yaml.Node, path string, line int, p *problems) *section {
	s := &section{path: path, line: line, values: make(map[string]*yaml.Node), lines: make(map[string]int), problems: p}
	if node == nil || node.Kind == 0 || node.Tag == "!!null" {
		return s
	}
	s.line = node.Line
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node.Kind != yaml.MappingNode {
		p.add(node.Line, "%s: names with values are due here, as in \"name: value\"", s.name(""))
		return s
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		if first, twice := s.lines[key.Value]; twice {
			p.add(key.Line, "%s is given twice, first in line %d", s.name(key.Value), first)
			continue
		}
		s.values[key.Value], s.lines[key.Value] = value, key.Line
	}
	return s
}

// name returns the full name of a setting, for messages.
func (s *section) name(name string) string {
	full := strings.Trim(s.path+"."+name, ".")
	if full == "" {
		return "the file"
	}
	return full
}

func (s *section) wrong(name, format string, args ...any) {
	line := s.lines[name]
	if line == 0 {
		line = s.line
	}
	s.problems.add(line, "%s: %s", s.name(name), fmt.Sprintf(format, args...))
}

// scalar takes a single value. It returns false if the value is missing or not a single one.
func (s *section) scalar(name string) (string, bool) {
	s.known = append(s.known, name)
	v := s.values[name]
	if v == nil || v.Tag == "!!null" {
		return "", false
	}
	if v.Kind != yaml.ScalarNode {
		s.wrong(name, "one value is due here, not a list or names")
		return "", false
	}
	return v.Value, true
}

func (s *section) text(name, otherwise string) string {
	if v, ok := s.scalar(name); ok {
		return v
	}
	return otherwise
}

func (s *section) duration(name string) time.Duration {
	v, ok := s.scalar(name)
	if !ok || v == "0" {
		return 0
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		s.wrong(name, "%q is no duration: write it as 250ms, 30s, 5m or 1h", v)
	}
	return d
}

func (s *section) integer(name string) int {
	v, ok := s.scalar(name)
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(v, 10, 32)
	if err != nil {
		s.wrong(name, "%q is no whole number", v)
	}
	return int(n)
}

// number takes a number with or without a fraction.
func (s *section) number(name string) float64 {
	v, ok := s.scalar(name)
	if !ok {
		return 0
	}
	x, err := strconv.ParseFloat(v, 64)
	if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
		s.wrong(name, "%q is no number", v)
		return 0
	}
	return x
}

// truth takes true or false.
func (s *section) truth(name string) bool {
	v, ok := s.scalar(name)
	if !ok || v == "false" {
		return false
	}
	if v != "true" {
		s.wrong(name, "%q is neither true nor false", v)
	}
	return true
}

// size takes a number of bytes, with or without a unit.
func (s *section) size(name string) int64 {
	v, ok := s.scalar(name)
	if !ok {
		return 0
	}
	number, shift := v, 0
	for unit, by := range map[string]int{"KiB": 10, "MiB": 20, "GiB": 30} {
		if rest, has := strings.CutSuffix(v, unit); has {
			number, shift = strings.TrimSpace(rest), by
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n > 1<<(62-shift) || n < -1<<(62-shift) {
		s.wrong(name, "%q is no size: write it as 65536, 64KiB, 64MiB or 2GiB", v)
		return 0
	}
	return n << shift
}

// texts takes a list of values, or a single one.
func (s *section) texts(name string) (out []string) {
	s.known = append(s.known, name)
	v := s.values[name]
	switch {
	case v == nil || v.Tag == "!!null":
	case v.Kind == yaml.ScalarNode:
		out = []string{v.Value}
	case v.Kind == yaml.SequenceNode:
		for _, e := range v.Content {
			if e.Kind != yaml.ScalarNode {
				s.problems.add(e.Line, "%s: one value is due here", s.name(name))
				continue
			}
			out = append(out, e.Value)
		}
	default:
		s.wrong(name, "a list of values is due here")
	}
	return out
}

// section takes a mapping, which is empty if it is missing.
func (s *section) section(name string) *section {
	s.known = append(s.known, name)
	line := s.lines[name]
	if line == 0 {
		line = s.line
	}
	return newSection(s.values[name], s.name(name), line, s.problems)
}

// names lists the names in the file's order, and takes all of them.
func (s *section) names() []string {
	var out []string
	for name := range s.values {
		out = append(out, name)
	}
	slices.SortFunc(out, func(a, b string) int { return s.lines[a] - s.lines[b] })
	s.known = append(s.known, out...)
	return out
}

// end reports unknown names.
func (s *section) end() {
	for name, line := range s.lines {
		if !slices.Contains(s.known, name) {
			slices.Sort(s.known)
			s.problems.add(line, "%s means nothing here; known are %s", s.name(name), strings.Join(s.known, ", "))
		}
	}
}
