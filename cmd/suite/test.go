package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"time"
)

// runTests runs "go test" for each group of arguments, one after another, and shows one summary for all.
func runTests(ctx context.Context, args []string, out io.Writer) error {
	began := time.Now()
	t := newTally(out)
	var failed error
	for _, group := range groups(args) {
		if err := goTest(ctx, group, t); err != nil {
			failed = err
		}
	}
	fmt.Fprint(out, t.summary(time.Since(began)))
	if failed != nil {
		return failed
	}
	if len(t.failed) > 0 {
		return errors.New("tests failed")
	}
	return ctx.Err()
}

// groups splits arguments at "--".
func groups(args []string) (list [][]string) {
	for {
		i := slices.Index(args, "--")
		if i < 0 {
			return append(list, args)
		}
		list, args = append(list, args[:i]), args[i+1:]
	}
}

// goTest runs "go test" with args and passes its events to t. The flag -C, if present, comes first in args.
func goTest(ctx context.Context, args []string, t *tally) error {
	line := []string{"test"}
	if len(args) > 1 && args[0] == "-C" {
		line, args = append(line, args[:2]...), args[2:]
	}
	cmd := exec.CommandContext(ctx, goCommand(), append(append(line, "-json"), args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = t.read(events)
	return errors.Join(err, cmd.Wait())
}

// goCommand returns the go program that the Makefile chose.
func goCommand() string {
	if g := os.Getenv("GO"); g != "" {
		return g
	}
	return "go"
}
