package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/token"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/tools/go/packages"
)

// pack is the package whose operators are changed.
type pack struct {
	dir, name string
	sources   []*file
	changes   []*change
	offset    func(token.Pos) int
}

// load type-checks the package and finds its changes.
func load(ctx context.Context, o options) (*pack, error) {
	pkgs, err := packages.Load(&packages.Config{Context: ctx, Mode: packages.LoadSyntax, Dir: o.root}, o.pkg)
	if err != nil {
		return nil, err
	}
	if packages.PrintErrors(pkgs) > 0 || len(pkgs) != 1 {
		return nil, fmt.Errorf("%s is not one valid package", o.pkg)
	}
	l := pkgs[0]
	p := &pack{name: l.Name, offset: func(pos token.Pos) int { return l.Fset.Position(pos).Offset }}
	for i, name := range l.CompiledGoFiles {
		p.dir = filepath.Dir(name)
		if !chosen(o.files, filepath.Base(name)) {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		f := &file{name: name, base: filepath.Base(name), text: string(text)}
		p.sitesOf(f, l.Syntax[i], l.TypesInfo, l.Fset)
		p.sources = append(p.sources, f)
	}
	return p, nil
}

// usage is what a run of the tests took.
type usage struct{ processor, total time.Duration }

// tester runs the tests with changes.
type tester struct {
	options
	*pack
	dir    string // for generated files
	hidden map[string]string
	binary string // has all changes that need none of their own
	usual  usage
	quick  string // a regular expression: the tests that together take a small part of the time; empty: none
}

// prepare builds the binary and runs the tests without a change.
func (t *tester) prepare(ctx context.Context) error {
	t.hidden = make(map[string]string)
	all, err := filepath.Glob(filepath.Join(t.pack.dir, "*_test.go"))
	if err != nil {
		return err
	}
	for _, name := range all {
		if !chosen(t.tests, filepath.Base(name)) {
			t.hidden[name] = ""
		}
	}
	texts := map[string]string{filepath.Join(t.pack.dir, "mutate_helpers.go"): "package " + t.name + "\n" + helpers}
	for _, f := range t.sources {
		texts[f.name] = f.rewritten(0, len(f.text), f.sites, t.offset)
	}
	if t.binary, err = t.build(ctx, "all", texts); err != nil {
		return err
	}
	out, err := t.run(ctx, t.binary, 0, t.options.run, &t.usual)
	if err != nil {
		return fmt.Errorf("the tests fail without a change: %w\n%s", err, out)
	}
	t.quick = quickest(string(out))
	return nil
}

// quickest returns a regular expression for the tests that together take a tenth of the time, by the output of a run.
func quickest(out string) string {
	took := make(map[string]time.Duration)
	var names []string
	var left time.Duration
	for _, m := range regexp.MustCompile(`(?m)^--- PASS: (\w+) \((.+)\)$`).FindAllStringSubmatch(out, -1) {
		names = append(names, m[1])
		took[m[1]], _ = time.ParseDuration(m[2]) // go test writes it
		left += took[m[1]]
	}
	left /= 10
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(took[a], took[b]) })
	n := 0
	for n < len(names) && took[names[n]] <= left {
		left -= took[names[n]]
		n++
	}
	if n == 0 {
		return ""
	}
	return "^(" + strings.Join(names[:n], "|") + ")$"
}

// build compiles the tests with other texts of some files.
func (t *tester) build(ctx context.Context, name string, texts map[string]string) (string, error) {
	replace := make(map[string]string)
	for original, by := range t.hidden {
		replace[original] = by
	}
	for original, text := range texts {
		by := filepath.Join(t.dir, fmt.Sprintf("%s-%s", name, filepath.Base(original)))
		replace[original] = by
		if err := os.WriteFile(by, []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay, binary := filepath.Join(t.dir, name+".json"), filepath.Join(t.dir, name+".test")
	if err := os.WriteFile(overlay, b, 0o644); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, t.goCommand, "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", overlay, "-o", binary, t.pkg)
	cmd.Dir = t.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return binary, nil
}

// limits are of a run: seconds of processor time, and the rest of a run that waits for what never comes. Memory is limited
// because a change may turn a loop into one that eats all of it.
const limits = `ulimit -v 6000000; ulimit -t "$1"; shift; exec "$@"`

// run runs the tests whose names match the regular expression, with the change number id, or with none if it is 0. used, if
// not nil, gets what they took, and the run has no limits.
func (t *tester) run(ctx context.Context, binary string, id int, tests string, used *usage) (out []byte, err error) {
	processor, total, verbose := "unlimited", time.Hour, used != nil
	if used == nil {
		processor = fmt.Sprint(math.Ceil(max(2, t.patience*t.usual.processor.Seconds())))
		total = max(10*time.Minute, time.Duration(t.patience*float64(t.usual.total)))
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", limits, "sh", processor, binary,
		"-test.failfast", fmt.Sprintf("-test.v=%t", verbose), "-test.timeout", total.String(), "-test.run", tests, "-test.skip", t.skip)
	cmd.Dir, cmd.Env = t.pack.dir, append(os.Environ(), fmt.Sprintf("%s=%d", variable, id))
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	began := time.Now()
	err = cmd.Run()
	if used != nil && cmd.ProcessState != nil {
		*used = usage{cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), time.Since(began)}
	}
	return text.Bytes(), err
}

// try runs the tests with a change: the quick ones first, because most changes fail one of these.
func (t *tester) try(ctx context.Context, c *change) (outcome, error) {
	binary, id := t.binary, c.id
	if c.apart {
		var err error
		if binary, err = t.build(ctx, fmt.Sprintf("change-%d", c.id), map[string]string{c.file.name: c.changed()}); err != nil {
			return notViable, ctx.Err()
		}
		defer func() { _ = os.Remove(binary) }() // an error leaves it to the end
		id = 0
	}
	var out []byte
	var err error
	if t.quick != "" {
		out, err = t.run(ctx, binary, id, t.quick, nil)
	}
	if err == nil {
		out, err = t.run(ctx, binary, id, t.options.run, nil)
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return survived, nil
	case !errors.As(err, &exit):
		return "", err
	case !exit.Exited(), strings.Contains(string(out), "SIGXCPU"), strings.Contains(string(out), "panic: test timed out"):
		return timedOut, nil
	}
	return killed, nil
}
