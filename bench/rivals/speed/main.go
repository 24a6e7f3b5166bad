// Command speed measures weir beside its alternatives, over the network and in memory, and prints one table.
//
//	go run ./speed                  everything
//	go run ./speed -quick           fewer and shorter rounds: a look, not a result
//	go run ./speed -only hop,many   some of hop, many, invalidate, memory
//	go run ./speed -out FILE.json   also writes the table to a file
//
// It needs only Go. Redis takes part if redis-server is installed. What a hit in memory takes is in package micro.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/weircache/weir/bench"
)

const allParts = "hop,many,invalidate,memory"

// options configure how much is measured.
type options struct {
	quick  bool
	rounds int
	each   time.Duration // of a contender's turn
	log    func(format string, args ...any)
}

func main() {
	played, err := bench.Play(map[string]bench.Role{rolePeer: playPeer, roleEraser: playEraser})
	if !played {
		err = run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "speed:", err)
		os.Exit(1)
	}
}

func run() error {
	var (
		quick = flag.Bool("quick", false, "fewer and shorter rounds")
		out   = flag.String("out", "", "also write the table to this `file`, as JSON")
		only  = flag.String("only", allParts, "the parts to run, with commas between")
	)
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("%q: there are no arguments, only flags; see -help", flag.Arg(0))
	}
	o := options{quick: *quick, rounds: 7, each: 500 * time.Millisecond}
	t := bench.Table{Machine: bench.Machine(), Revision: bench.Revision()}
	began := time.Now()
	if *quick {
		o.rounds, o.each = 3, 200*time.Millisecond
		t.Heading = append(t.Heading, "A quick run: a look, not a result.")
	}
	if *out != "" {
		t.Heading = append(t.Heading, "Made by `make bench`, "+began.Format("2006-01-02")+".")
	}
	o.log = func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%5.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	parts := map[string]func(options, *bench.Table) error{"hop": hop, "many": many, "invalidate": invalidate, "memory": memory}
	names := strings.Split(*only, ",")
	for _, name := range names {
		if parts[name] == nil {
			return fmt.Errorf("-only %q: the parts are %s", name, allParts)
		}
	}
	for _, name := range names {
		o.log("%s", name)
		if err := parts[name](o, &t); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if _, err := t.WriteTo(os.Stdout); err != nil {
		return err
	}
	if *out != "" {
		return t.WriteFile(*out)
	}
	return nil
}
