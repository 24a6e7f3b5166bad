package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := command(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		if !errors.Is(err, errBroken) {
			fmt.Fprintln(os.Stderr, "replay:", err)
		}
		os.Exit(1)
	}
}

// errBroken says that a guarantee was broken and that the violation has been printed.
var errBroken = errors.New("a guarantee is broken")

// options are the command's.
type options struct {
	root, wasm string
	failed     string // file
	job        job
	schedules  uint64
	soak       time.Duration
	test       string
	controls   string // a regular expression
	pairs      int
}

func parse(args []string) (o options, err error) {
	f := flag.NewFlagSet("replay", flag.ContinueOnError)
	without := ""
	f.StringVar(&o.root, "root", "../../..", "the work tree of weir")
	f.StringVar(&o.wasm, "wasm", "", "a simulator that was built before, bin/replay/peertest.wasm for example, instead of building it")
	f.Uint64Var(&o.job.Seed, "seed", 0, "the fault seed")
	f.Uint64Var(&o.job.Schedule, "schedule", 1, "the schedule seed, or the first of -schedules")
	f.Uint64Var(&o.schedules, "schedules", 0, "try so many schedules of the seed, until one breaks a guarantee")
	f.DurationVar(&o.soak, "soak", 0, "draw pairs of seeds for this long")
	f.StringVar(&o.failed, "failed", "", "the file that keeps the pairs that failed")
	f.StringVar(&without, "without", "", "the numbers of faults to leave out, with commas between them")
	f.BoolVar(&o.job.Brief, "brief", false, "a short schedule on three nodes")
	f.StringVar((*string)(&o.job.Choice), "choice", string(allChoice), "what the schedule seed decides: none, or a list of order, locks and lines")
	f.StringVar(&o.controls, "controls", "", "print how soon each control whose name matches this regular expression is caught, as a table")
	f.IntVar(&o.pairs, "pairs", 10, "with -controls: how many pairs of seeds each control gets")
	f.StringVar(&o.test, "test", "", "run the tests of package peertest with this name, under the schedule seed")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	for number := range strings.SplitSeq(without, ",") {
		if number == "" {
			continue
		}
		n, err := strconv.Atoi(number)
		if err != nil {
			return o, fmt.Errorf("-without takes numbers with commas between them: %w", err)
		}
		o.job.Without = append(o.job.Without, n)
	}
	if o.job.Seed == 0 && o.soak == 0 && o.test == "" && o.controls == "" {
		return o, errors.New("which seed? make sim SEED=7, or make sim SEED=7 SCHEDULES=200")
	}
	o.root, err = filepath.Abs(o.root)
	return o, err
}

func command(ctx context.Context, args []string, out io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	s, err := open(ctx, o.root, o.wasm, o.controls != "")
	if err != nil {
		return err
	}
	defer func() { _ = s.close(context.WithoutCancel(ctx)) }() // an error would lose nothing
	switch {
	case o.controls != "":
		return s.controls(ctx, o, out)
	case o.test != "":
		return s.exec(ctx, o.job, out, "-test.run", o.test, "-test.v")
	case o.soak > 0:
		return s.soak(ctx, o, out)
	case o.schedules > 0:
		return s.search(ctx, o, out)
	}
	return s.tell(ctx, o.job, s.run(ctx, o.job), out)
}

// open loads the simulator from the file wasm, or builds the work tree's first if wasm is empty: with the faults that the
// controls need, or without.
func open(ctx context.Context, root, wasm string, faulty bool) (*simulator, error) {
	dir := filepath.Join(root, "bin", "replay")
	if faulty {
		dir = filepath.Join(dir, "controls")
	}
	if wasm == "" {
		var err error
		if wasm, err = build(ctx, root, dir, faulty); err != nil {
			return nil, err
		}
	}
	return load(ctx, wasm, dir)
}

// tell prints the result of a job, and for a failed job the shortest history that it finds.
func (s *simulator) tell(ctx context.Context, j job, r report, out io.Writer) error {
	_, _ = fmt.Fprintf(out, "%v: digest %s, %d faults planned\n%s\n", j, r.Digest, r.Faults, r.Summary)
	if r.ok() {
		return nil
	}
	for _, b := range r.Broken {
		_, _ = fmt.Fprintf(out, "%v: %s\n", j, b.What)
	}
	for _, text := range r.Failed {
		_, _ = fmt.Fprintf(out, "%v: %s\n", j, text)
	}
	_, _ = fmt.Fprintln(out, "leaving out faults while it still shows ...")
	less, shown := shrink(ctx, s.run, j, r)
	_, _ = fmt.Fprintf(out, "the fewest faults: make sim %v\nthe shortest history:\n%s\n%s", less, shown.What, shown.History)
	return errBroken
}

// each runs the jobs that next returns on all processors, or on as many as GOMAXPROCS says, and calls done with each one's
// report, one at a time. It ends when next or done returns false.
func (s *simulator) each(ctx context.Context, next func() (job, bool), done func(job, report) bool) {
	var wg sync.WaitGroup
	var mu sync.Mutex // guards ended, and the data that next and done use
	ended := false
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			mu.Lock()
			defer mu.Unlock()
			for !ended && ctx.Err() == nil {
				j, ok := next()
				if !ok {
					return
				}
				mu.Unlock()
				r := s.run(ctx, j)
				mu.Lock()
				ended = !done(j, r) || ended
			}
		})
	}
	wg.Wait()
}

// search tries schedules of one fault seed until one breaks a guarantee.
func (s *simulator) search(ctx context.Context, o options, out io.Writer) error {
	digests := make(map[string]bool)
	var failed []job
	var why []report
	begun := uint64(0)
	s.each(ctx, func() (j job, ok bool) {
		if begun == o.schedules {
			return j, false
		}
		j = o.job
		j.Schedule += begun
		begun++
		return j, true
	}, func(j job, r report) bool {
		digests[r.Digest] = true
		if !r.ok() {
			failed, why = append(failed, j), append(why, r)
		}
		return r.ok()
	})
	_, _ = fmt.Fprintf(out, "%d schedules of seed %d, %d different histories\n", begun, o.job.Seed, len(digests))
	if len(failed) == 0 {
		return ctx.Err()
	}
	return s.tell(ctx, failed[0], why[0], out)
}

// soak draws pairs of seeds.
func (s *simulator) soak(ctx context.Context, o options, out io.Writer) (err error) {
	end := time.Now().Add(o.soak)
	runs, failures := 0, 0
	s.each(ctx, func() (job, bool) {
		j := o.job
		j.Seed, j.Schedule = 1+rand.Uint64N(1e9), 1+rand.Uint64N(1e9)
		return j, time.Now().Before(end)
	}, func(j job, r report) bool {
		if runs++; runs%50 == 0 {
			_, _ = fmt.Fprintf(out, "%d pairs, %d failed\n", runs, failures)
		}
		if r.ok() || ctx.Err() != nil {
			return true
		}
		failures++
		for _, b := range r.Broken {
			_, _ = fmt.Fprintf(out, "make sim %v: %s\n", j, b.What)
		}
		for _, text := range r.Failed {
			_, _ = fmt.Fprintf(out, "make sim %v: %s\n", j, text)
		}
		err = keep(o.failed, j)
		return err == nil
	})
	_, _ = fmt.Fprintf(out, "%d pairs, %d failed\n", runs, failures)
	if err == nil && failures > 0 {
		err = errBroken
	}
	return err
}

// keep appends a pair to the file at path, unless path is empty.
func keep(path string, j job) error {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, j.Seed, j.Schedule)
	return errors.Join(err, f.Close())
}
