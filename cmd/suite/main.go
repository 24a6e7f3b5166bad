// Command suite runs the project's own tests for the Makefile. It is not part of what a service embeds.
//
//	suite test [-C dir] ARGS... [-- [-C dir] ARGS...]   runs "go test ARGS" and says at the end what ran
//	suite flaky [FLAGS] PACKAGES...                     repeats tests, shuffled and under load, and counts failures
//	suite load COMMAND...                               runs a command beside busy loops
//
// suite test shows the output of failed tests only. A test reports what it examined with t.Attr(name, number), where
// name is one of the counters in tally.go. The summary adds these numbers up.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err == nil {
		return
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() < 0 {
		fmt.Fprintln(os.Stderr, "suite:", err)
	}
	os.Exit(1)
}

func run(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: suite test|flaky|load ARGS...; the head of cmd/suite/main.go explains them")
	}
	switch name, args := args[0], args[1:]; name {
	case "test":
		return runTests(ctx, args, os.Stdout)
	case "flaky":
		return runFlaky(ctx, args, os.Stdout)
	case "load":
		return runLoaded(ctx, args)
	default:
		return fmt.Errorf("unknown command %q: use test, flaky or load", name)
	}
}
