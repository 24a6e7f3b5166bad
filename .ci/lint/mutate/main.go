// Command mutate changes one operator of a package at a time and runs the package's tests, to see whether they notice.
// The script .ci/mutate starts it.
//
// These changes are made, in all files but tests:
//
//	< <= > >=    with and without equality, and to its negation
//	== !=        to the other
//	+ - * / %    to - + / * *
//	++ --        to the other
//	-x           to +x
//
// All changes are compiled into one test binary, in which an environment variable chooses one (rewrite.go). Only a change
// inside a constant needs a binary of its own.
//
// A change is noticed if a test fails, or if the tests hang: if they take many times the processor time that they take
// without a change, or many times as long. A busy machine does not matter to the first limit.
//
// The rate is (killed + timed out) / (killed + timed out + survived). A change that does not compile does not count.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"sync"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := command(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

// options are the command's.
type options struct {
	goCommand, root, pkg string
	files, tests         []string // base names; empty: all
	run, skip            string
	at                   *regexp.Regexp // of changes as they are printed
	min, patience        float64
	workers              int
	list                 bool
}

func parse(args []string) (o options, err error) {
	f := flag.NewFlagSet("mutate", flag.ContinueOnError)
	files, tests, at := "", "", ""
	f.StringVar(&o.goCommand, "go", "go", "the go command")
	f.StringVar(&o.root, "root", "../..", "the root of the package's module")
	f.StringVar(&o.pkg, "pkg", "", "the package, such as ./ring")
	f.StringVar(&files, "files", "", "the source files that are changed, with spaces between them; empty: all")
	f.StringVar(&tests, "tests", "", "the test files that are compiled, with spaces between them; empty: all")
	f.StringVar(&at, "at", "", "try only changes that match this regular expression, as they are printed")
	f.StringVar(&o.run, "run", "", "the tests that are run, as in go test -run")
	f.StringVar(&o.skip, "skip", "", "the tests that are not run, as in go test -skip")
	f.Float64Var(&o.min, "min", 85, "the lowest rate, in percent, that is not an error")
	f.Float64Var(&o.patience, "patience", 10, "how many times the time of the tests without a change they may take with one")
	f.IntVar(&o.workers, "workers", 1, "how many changes are tried at once")
	f.BoolVar(&o.list, "list", false, "print the changes and try none")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.files, o.tests = strings.Fields(files), strings.Fields(tests)
	if o.pkg == "" {
		return o, errors.New("which package? make mutate PKG=./ring")
	}
	o.at, err = regexp.Compile(at)
	return o, err
}

func command(ctx context.Context, args []string, out io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	p, err := load(ctx, o)
	if err != nil {
		return err
	}
	p.changes = slices.DeleteFunc(p.changes, func(c *change) bool { return !o.at.MatchString(c.String()) })
	if o.list {
		for _, c := range p.changes {
			_, _ = fmt.Fprintln(out, c)
		}
		return nil
	}
	dir, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // an error leaves a temporary directory
	t := tester{options: o, pack: p, dir: dir}
	if err := t.prepare(ctx); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "%s: %d changes; the tests take %v of processor time without one\n", o.pkg, len(p.changes), t.usual.processor)
	return t.all(ctx, out)
}

// An outcome is what the tests did with a change.
type outcome string

const (
	killed    outcome = "killed"
	survived  outcome = "survived"
	timedOut  outcome = "timed out"
	notViable outcome = "not viable" // it does not compile
)

// all tries all changes, prints each outcome as it comes and the rate at the end. The error says that the rate is too low.
func (t *tester) all(ctx context.Context, out io.Writer) error {
	outcomes := make([]outcome, len(t.changes))
	errs := make([]error, len(t.changes))
	next := make(chan int)
	var wg sync.WaitGroup
	var mu sync.Mutex // guards out
	for range max(t.workers, 1) {
		wg.Go(func() {
			for i := range next {
				outcomes[i], errs[i] = t.try(ctx, t.changes[i])
				mu.Lock()
				_, _ = fmt.Fprintf(out, "%-10s %s\n", outcomes[i], t.changes[i])
				mu.Unlock()
			}
		})
	}
	for i := range t.changes {
		next <- i
	}
	close(next)
	wg.Wait()
	if err := errors.Join(append(errs, ctx.Err())...); err != nil {
		return err
	}
	counts := make(map[outcome]int)
	for _, o := range outcomes {
		counts[o]++
	}
	noticed := counts[killed] + counts[timedOut]
	tried := noticed + counts[survived]
	if tried == 0 {
		return errors.New("no change was tried")
	}
	_, _ = fmt.Fprintf(out, "%d changes: %d killed, %d survived, %d timed out; %d not viable\n", tried, counts[killed], counts[survived], counts[timedOut], counts[notViable])
	for _, o := range []outcome{timedOut, survived} {
		for i, c := range t.changes {
			if outcomes[i] == o {
				_, _ = fmt.Fprintf(out, "  %-10s %s\n", o, c)
			}
		}
	}
	rate := 100 * float64(noticed) / float64(tried)
	_, _ = fmt.Fprintf(out, "kill rate %.1f %%\n", rate)
	if rate < t.min {
		return fmt.Errorf("the kill rate is below %g %%: add a test for what survived, or delete it", t.min)
	}
	return nil
}

// chosen reports whether a list of names, which stands for all if it is empty, has name.
func chosen(list []string, name string) bool { return len(list) == 0 || slices.Contains(list, name) }
