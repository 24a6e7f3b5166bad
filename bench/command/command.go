package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/weircache/weir/bench/harness"
	"github.com/weircache/weir/bench/report"
	"github.com/weircache/weir/bench/scenario"
	"github.com/weircache/weir/bench/trace"
)

// errPartial is returned by a run that was not measured completely. The run has shown and written what it did
// measure.
var errPartial = errors.New("not all was measured")

// errClaim is returned by a run in which weir violated a claim of the scenario.
var errClaim = errors.New("the scenario's claim was not held")

// Options configure the command and the systems that it can measure besides weir.
type Options struct {
	// Use is the name of the command; "": "bench".
	Use string
	// Rivals are the systems that the user can have measured alternately with weir.
	Rivals []harness.System
	// OnlyNamed are further rivals, which are measured only if the user names them.
	OnlyNamed []harness.System
}

// settings are the flags of a run.
type settings struct {
	file, trace, format string
	rounds              int
	duration            time.Duration
	seed                uint64
	out                 string
	systems             string
	svg                 string
}

// New creates the command: run with a scenario's name, or one of list, show and report.
func New(o Options) *cobra.Command {
	if o.Use == "" {
		o.Use = "bench"
	}
	var f settings
	c := &cobra.Command{
		Use:   o.Use + " [scenario]",
		Short: "Measure a cluster in a scenario",
		Long: "Measure a cluster in a scenario: one of the built-in ones (see list), or a file of your own (--file).\n" +
			"The table goes to standard output; --out also writes NAME.json and NAME.svg.\n" +
			"Ctrl-C ends the run and keeps what was measured, marked as partial.",
		Args:          cobra.MaximumNArgs(1),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(c *cobra.Command, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			if name == "" && f.file == "" {
				return c.Help()
			}
			return run(c, o, f, name)
		},
	}
	p := c.Flags()
	p.StringVar(&f.file, "file", "", "run the scenario in this `file`")
	p.StringVar(&f.trace, "trace", "", "replay this trace `file` instead of the scenario's, or instead of the keys of its one load")
	p.StringVar(&f.format, "format", "", "the trace's `format`: "+strings.Join(trace.Formats(), ", "))
	p.IntVar(&f.rounds, "rounds", 1, "how often each system runs")
	p.DurationVar(&f.duration, "duration", 0, "`duration` of the run, instead of the scenario's")
	p.Uint64Var(&f.seed, "seed", 0, "`seed` of all random choices, instead of the scenario's")
	p.StringVar(&f.out, "out", "", "also write the results to `PATH`.json and .svg")
	p.StringVar(&f.svg, "svg", "origin_calls", "what the .svg shows: a `measure`, timeline (which the .json then has too) or events")
	if len(o.Rivals) > 0 {
		p.StringVar(&f.systems, "systems", "all", "`NAMES` of the systems to measure, with commas between: "+strings.Join(names(o), ", ")+allMeans(o))
	}
	c.AddCommand(list(), show(), again(), node())
	return c
}

func names(o Options) []string {
	all := []string{harness.Weir{}.Name()}
	for _, r := range slices.Concat(o.Rivals, o.OnlyNamed) {
		all = append(all, r.Name())
	}
	return all
}

// allMeans says what --systems all leaves out.
func allMeans(o Options) string {
	if len(o.OnlyNamed) == 0 {
		return ""
	}
	return "; all leaves out the last " + strconv.Itoa(len(o.OnlyNamed))
}

// list is `bench list`.
func list() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the built-in scenarios", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, name := range scenario.Names() {
				s, err := scenario.Builtin(name)
				if err != nil {
					return err
				}
				if _, err := fmt.Fprintf(w, "%s\t%v\t%s\n", name, s.Duration, s.About); err != nil {
					return err
				}
			}
			return w.Flush()
		},
	}
}

// node is the process of one node, which scenarios of kind processes start.
func node() *cobra.Command {
	return &cobra.Command{
		Use: harness.NodeArg, Hidden: true, Args: cobra.ExactArgs(3),
		RunE: func(c *cobra.Command, args []string) error {
			return harness.PlayNode(args, c.InOrStdin(), c.OutOrStdout())
		},
	}
}

// show is `bench show`.
func show() *cobra.Command {
	return &cobra.Command{
		Use: "show scenario", Short: "Write a built-in scenario out, to start one of your own from", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			b, err := scenario.Source(args[0])
			if err == nil {
				_, err = c.OutOrStdout().Write(b)
			}
			return err
		},
	}
}

// again is `bench report`.
func again() *cobra.Command {
	var out, svg string
	c := &cobra.Command{
		Use: "report result.json", Short: "Show a result again, or write its other files", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := report.ReadJSON(args[0])
			if err != nil {
				return err
			}
			if out != "" {
				if err := write(r, out, svg); err != nil {
					return err
				}
			}
			return report.Text(c.OutOrStdout(), r)
		},
	}
	c.Flags().StringVar(&out, "out", "", "write `PATH`.json and .svg")
	c.Flags().StringVar(&svg, "svg", "origin_calls", "what the .svg shows: a `measure`, timeline or events")
	return c
}

// load returns the scenario that the flags and the name specify.
func load(f settings, name string) (*scenario.Scenario, error) {
	var s *scenario.Scenario
	var err error
	switch {
	case f.file != "" && name != "":
		return nil, fmt.Errorf("a scenario's name, %s, and a file, %s: give one", name, f.file)
	case f.file != "":
		s, err = scenario.ReadFile(f.file)
	default:
		s, err = scenario.Builtin(name)
	}
	if err != nil {
		return nil, err
	}
	if f.trace != "" {
		if err := replay(s, f.trace, f.format); err != nil {
			return nil, err
		}
	}
	if f.duration != 0 {
		s.Duration = scenario.Duration(f.duration)
	}
	if f.seed != 0 {
		s.Seed = f.seed
	}
	b, err := s.YAML() // validates what the flags have changed
	if err != nil {
		return nil, err
	}
	return scenario.Parse(s.Name+", with the flags", b)
}

// replay makes the scenario replay a trace file instead of its own traces. If it has none, its one load does. What the
// scenario claims of its own keys is not claimed of the trace's.
func replay(s *scenario.Scenario, file, format string) error {
	found := false
	for i := range s.Load {
		if k := &s.Load[i].Keys; k.Kind == "trace" {
			k.File, k.Format, found = file, format, true
		}
	}
	switch {
	case found:
		return nil
	case len(s.Load) != 1 || s.Load[0].Loop == "burst":
		return fmt.Errorf("scenario %s replays no trace: --trace has nothing to replace", s.Name)
	}
	s.Load[0].Keys = scenario.Keys{Kind: "trace", File: file, Format: format}
	s.Values = scenario.Values{Kind: "trace", Size: s.Values.Size}
	s.Claims = nil
	return nil
}

// choose returns the systems that the user asks for. "all" among the names is weir and all rivals, in this order.
func choose(o Options, asked string) ([]harness.System, error) {
	all := append([]harness.System{harness.Weir{}}, o.Rivals...)
	if len(o.Rivals) == 0 {
		return all, nil
	}
	var out []harness.System
	for want := range strings.SplitSeq(asked, ",") {
		want = strings.TrimSpace(want)
		if want == "all" {
			out = append(out, all...)
			continue
		}
		known := slices.Concat(all, o.OnlyNamed)
		i := slices.IndexFunc(known, func(s harness.System) bool { return s.Name() == want })
		if i < 0 {
			return nil, fmt.Errorf("there is no system %q; there are %s", want, strings.Join(names(o), ", "))
		}
		out = append(out, known[i])
	}
	return out, nil
}

func run(c *cobra.Command, o Options, f settings, name string) error {
	s, err := load(f, name)
	if err != nil {
		return err
	}
	systems, err := choose(o, f.systems)
	if err != nil {
		return err
	}
	if s.Cluster.Kind != scenario.InProcess {
		if len(systems) > 1 && f.systems != "all" {
			return fmt.Errorf("rivals run in one process: scenario %s has kind %s", s.Name, s.Cluster.Kind)
		}
		systems = systems[:1]
	}
	if w, ok := systems[0].(harness.Weir); ok {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		w.Exe = append([]string{self}, strings.Fields(c.CommandPath())[1:]...)
		systems[0] = w
	}
	if f.out != "" { // check now: after minutes of measuring, the result could not be saved
		probe, err := os.CreateTemp(filepath.Dir(f.out), ".weir-bench-*")
		if err != nil {
			return fmt.Errorf("--out %s cannot be written: %w", f.out, err)
		}
		if err := errors.Join(probe.Close(), os.Remove(probe.Name())); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p := &progress{w: c.ErrOrStderr()}
	r, err := harness.Run(ctx, s, systems, harness.Options{Rounds: f.rounds, Progress: p.tell, Command: commandLine(c)})
	stop() // a second Ctrl-C ends the process at once
	if r == nil {
		return err
	}
	if e := report.Text(c.OutOrStdout(), r); e != nil {
		return errors.Join(err, e)
	}
	if f.out != "" {
		if f.svg != "timeline" {
			r.Abridge()
		}
		if e := write(r, f.out, f.svg); e != nil {
			return errors.Join(err, e)
		}
	}
	if err == nil && r.Partial != "" {
		err = fmt.Errorf("%w: %s", errPartial, r.Partial)
	}
	for _, y := range r.Systems {
		if y.Name != (harness.Weir{}).Name() {
			continue
		}
		for _, v := range harness.Judge(s.Claims, y) {
			if !v.Held {
				err = errors.Join(err, fmt.Errorf("%w: it is %v, and should be %s", errClaim, v.Value, v.Claim))
			}
		}
	}
	return err
}

// commandLine returns the command line of the run.
func commandLine(c *cobra.Command) string {
	words := []string{c.CommandPath()}
	for _, a := range os.Args[1:] {
		if !strings.HasPrefix(a, "-test.") && a != "bench" {
			words = append(words, a)
		}
	}
	return strings.Join(words, " ")
}

// write writes all files of a result.
func write(r *harness.Report, path, measure string) error {
	path = strings.TrimSuffix(path, ".json")
	for _, x := range []struct {
		ext   string
		write func(f *os.File) error
	}{
		{".json", func(f *os.File) error { return report.JSON(f, r) }},
		{".svg", func(f *os.File) error { return report.SVG(f, r, measure) }},
	} {
		f, err := os.Create(path + x.ext)
		if err != nil {
			return err
		}
		if err := errors.Join(x.write(f), f.Close()); err != nil {
			return fmt.Errorf("%s: %w", path+x.ext, err)
		}
	}
	return nil
}

// Main runs the command with its own context and returns the exit code: 0, or 1 with the error on standard error.
func Main(o Options, args []string) int {
	c := New(o)
	c.SetArgs(args)
	if err := c.ExecuteContext(context.Background()); err != nil {
		_, _ = fmt.Fprintln(c.ErrOrStderr(), o.Use+": "+err.Error())
		return 1
	}
	return 0
}
