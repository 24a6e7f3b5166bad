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
		Short: "Run nodes of a weir cluster and inspect them",
		Long: `weir node runs a node of a cluster. The other commands inspect and operate a running cluster of such nodes or of
services that embed the library. They ask the stats endpoint of one member: set --addr to the URL at which
that service serves it.

Exit codes: 0 success; 1 failure; 2 the command line or the configuration is wrong; 3 success, but
some members did not answer or confirm; 4 no weir answers at --addr.`,
		Version: peer.Version(), SilenceUsage: true, SilenceErrors: true,
	}
	flags := root.PersistentFlags()
	flags.StringVarP(&w.addr, "addr", "a", "http://127.0.0.1:8080/weir/", "`URL` of the stats endpoint of one member")
	flags.StringVar(&w.token, "token-file", "", "`file` with the operator's token")
	flags.BoolVar(&w.json, "json", false, "print JSON instead of a table")
	root.AddCommand(nodeCommand(w), statsCommand(w), membersCommand(w), topCommand(w), ringCommand(w), invalidateCommand(w), warmCommand(w), drillCommand(w), command.New(command.Options{}))
	return root
}
