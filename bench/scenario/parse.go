package scenario

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFile is larger than any scenario, in bytes.
const maxFile = 1 << 20

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

// Parse reads a scenario, fills in the defaults and checks it. The error begins with name. It names what cannot be read
// with its line, or else every problem with its path, such as faults[1].node.
func Parse(name string, b []byte) (s *Scenario, err error) {
	// YAML libraries panic on some files that are not YAML; fuzzing found some.
	defer func() {
		if p := recover(); p != nil {
			s, err = nil, fmt.Errorf("%s: it cannot be read as YAML: %v", name, p)
		}
	}()
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s: %d bytes; a scenario has at most %d", name, len(b), maxFile)
	}
	s = &Scenario{}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(s); errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: there is nothing in it", name)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: several documents (---) in one file: a scenario is one", name)
	}
	s.fill()
	var c checker
	c.scenario(s)
	if len(c.problems) > 0 {
		return nil, errors.New(name + ": " + strings.Join(c.problems, "\n"+name+": "))
	}
	return s, nil
}

// YAML writes the scenario out in full, defaults included.
func (s *Scenario) YAML() ([]byte, error) { return yaml.Marshal(s) }
