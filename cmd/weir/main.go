// Command weir runs nodes of a weir cluster and inspects them. weir help lists the subcommands.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weircache/weir/bench/command"

	"github.com/weircache/weir/peer"
)

// The exit codes, as documented in the command's help.
const (
	exitFailed  = 1 // the requested operation failed
	exitUsage   = 2 // the command line or the configuration is wrong
	exitPartial = 3 // it worked, but some members did not answer or confirm
	exitTarget  = 4 // nothing answers at --addr, or what answers is not weir
)

// An exitError is an error with an exit code of its own.
type exitError struct {
	code int
	text string
}

func (e *exitError) Error() string { return e.text }

func usageError(text string) error { return &exitError{exitUsage, text} }

// world is where a command writes its output and how it reaches a node.
type world struct {
	out, err  io.Writer
	addr      string
	token     string // the file that holds the operator's token
	json      bool
	connected bool // out is a terminal
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	info, err := os.Stdout.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	code := run(ctx, os.Args[1:], &world{out: os.Stdout, err: os.Stderr, connected: terminal})
	stop()
	os.Exit(code)
}

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, w *world) int {
	root := rootCommand(w)
	root.SetArgs(args)
	root.SetOut(w.out)
	root.SetErr(w.err)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	var e *exitError
	if errors.As(err, &e) {
		fmt.Fprintln(w.err, "weir:", strings.ReplaceAll(e.text, "\n", "\nweir: "))
		return e.code
	}
	fmt.Fprintln(w.err, "weir:", err)
	if isUsage(err) {
		fmt.Fprintf(w.err, "weir: see %s --help\n", cmd.CommandPath())
		return exitUsage
	}
	return exitFailed
}

// isUsage reports whether cobra rejected the command line.
func isUsage(err error) bool {
	for _, start := range []string{"unknown ", "flag needs", "invalid argument", "accepts ", "requires ", "bad flag", "required flag"} {
		if strings.HasPrefix(err.Error(), start) {
			return true
		}
	}
	return false
}

func rootCommand(w *world) *cobra.Command {
	root := &cobra.Command{
		Use:   "weir",
		Short: "A tiered cache whose instances are the cluster: run nodes, and look into them",
		Long: `weir runs nodes of a cluster (weir node) and looks into a cluster that runs: its own nodes, and
services that embed the library. For that it asks the stats endpoint of any one member: --addr is where
that service has mounted it.

Exit codes: 0 it worked; 1 it did not; 2 the command line or the configuration is wrong; 3 it worked, but
some members did not answer or confirm; 4 nothing answers at --addr, or it is not weir.`,
		Version: peer.Version(), SilenceUsage: true, SilenceErrors: true,
	}
	flags := root.PersistentFlags()
	flags.StringVarP(&w.addr, "addr", "a", "http://127.0.0.1:8080/weir/", "the stats endpoint of one member, a `URL`")
	flags.StringVar(&w.token, "token-file", "", "a `file` that holds the operator's token")
	flags.BoolVar(&w.json, "json", false, "print JSON in place of a table")
	root.AddCommand(nodeCommand(w), statsCommand(w), membersCommand(w), topCommand(w), ringCommand(w), invalidateCommand(w), warmCommand(w), drillCommand(w), command.New(command.Options{}))
	return root
}
