// Command speed measures weir beside its alternatives and prints one table.
//
//	go run ./speed                  everything, about seven minutes
//	go run ./speed -quick           fewer and shorter rounds: a look, not a result
//	go run ./speed -only hop,near   some of near, loaders, hop, many, decode, storm, invalidate, ring, memory
//	go run ./speed -out FILE.json   also writes the table to a file
//
// It needs only Go. Redis takes part if redis-server is installed.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/weircache/weir/bench"
)

const allParts = "near,loaders,hop,many,decode,storm,invalidate,ring,memory"

// options configure how much is measured.
type options struct {
	quick  bool
	rounds int
	each   time.Duration // of a contender's turn
	keys   int           // for near hits
	log    func(format string, args ...any)
}

func main() {
	played, err := bench.Play(map[string]bench.Role{rolePeer: playPeer, roleMany: playMany})
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
		prof  = flag.String("cpuprofile", "", "write a profile of this process to this `file`")
	)
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("%q: there are no arguments, only flags; see -help", flag.Arg(0))
	}
	o := options{rounds: 7, each: 500 * time.Millisecond, keys: 1_000_000}
	if *quick {
		o = options{quick: true, rounds: 3, each: 200 * time.Millisecond, keys: 200_000}
	}
	began := time.Now()
	o.log = func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%5.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	parts := map[string]func(options, *bench.Table) error{
		"near": near, "loaders": loaders, "decode": decode, "hop": hop, "many": many, "storm": storm, "invalidate": invalidate, "ring": view, "memory": memory,
	}
	names := strings.Split(*only, ",")
	for _, name := range names {
		if parts[name] == nil {
			return fmt.Errorf("-only %q: the parts are %s", name, allParts)
		}
	}
	if *prof != "" {
		f, err := os.Create(*prof)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	t := bench.Table{Machine: bench.Machine(), Revision: bench.Revision(), Heading: []string{
		fmt.Sprintf("Medians of %d alternating rounds; a ratio is the median of the rounds' ratios.", o.rounds),
	}}
	if *out != "" {
		t.Heading = append(t.Heading, "Made by `make bench`, "+began.Format("2006-01-02")+".")
	}
	if o.quick {
		t.Heading = append(t.Heading, "A quick run: a look, not a result.")
	}
	for _, name := range names {
		if err := parts[name](o, &t); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if _, err := t.WriteTo(os.Stdout); err != nil {
		return err
	}
	if *out != "" {
		if err := t.WriteFile(*out); err != nil {
			return err
		}
	}
	o.log("done; %d of %d rows miss their aim", t.Lost(), len(t.Rows))
	return nil
}
