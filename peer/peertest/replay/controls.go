package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"
)

// sighting says how soon a run shows its first violation.
type sighting struct {
	Guarantee string
	After     time.Duration // of virtual time, since the run began
	Reads     int           // how many reads had ended by then
}

// control is a run in which something is wrong on purpose.
type control struct {
	name, breaks string
	job          job // without seeds
}

// controls runs each control whose name matches, with and without choice, and prints how soon each was caught, as a table
// in Markdown. The n-th pair of a control has the n-th fault seed and the n-th schedule seed after those of the job.
func (s *simulator) controls(ctx context.Context, o options, out io.Writer) error {
	match, err := regexp.Compile(o.controls)
	if err != nil {
		return err
	}
	all, err := s.allControls(ctx)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprint(out, tableHead)
	for _, c := range all {
		if !match.MatchString(c.name) {
			continue
		}
		_, _ = fmt.Fprintf(out, "| %s | %s |", c.name, c.breaks)
		for _, ch := range []choice{allChoice, noChoice} {
			c.job.Choice = ch
			_, _ = fmt.Fprintf(out, " %s |", caught(s.sightings(ctx, o, c.job)))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		_, _ = fmt.Fprintln(out)
	}
	return nil
}

// sightings runs a job with pairs of seeds, and returns the first sighting of each run; nil: it shows no violation.
func (s *simulator) sightings(ctx context.Context, o options, j job) []*sighting {
	list := make([]*sighting, o.pairs)
	begun := uint64(0)
	s.each(ctx, func() (job, bool) {
		j.Seed, j.Schedule = max(o.job.Seed, 1)+begun, o.job.Schedule+begun
		begun++
		return j, begun <= uint64(o.pairs)
	}, func(j job, r report) bool {
		list[j.Schedule-o.job.Schedule] = r.First
		return true
	})
	return list
}

const tableHead = `| control | breaks | with choice: seen in | first | time | reads | without: seen in | first | time | reads |
|---|---|---|---|---|---|---|---|---|---|
`

// unseen is the worth of a run that shows no violation, when runs are compared.
const unseen = math.MaxInt64

// caught describes the sightings in four columns: how many pairs show the control, the first that does, and the median and
// the worst of the time and of the reads that it took.
func caught(list []*sighting) string {
	seen, first := 0, "none"
	var times, reads []int64
	for i, x := range list {
		if x == nil {
			times, reads = append(times, unseen), append(reads, unseen)
			continue
		}
		if seen++; seen == 1 {
			first = fmt.Sprint(i + 1)
		}
		times, reads = append(times, int64(x.After)), append(reads, int64(x.Reads))
	}
	return fmt.Sprintf("%d of %d | %s | %s | %s", seen, len(list), first,
		medianAndWorst(times, func(n int64) string { return fmt.Sprintf("%.2f s", time.Duration(n).Seconds()) }),
		medianAndWorst(reads, func(n int64) string { return fmt.Sprint(n) }))
}

// medianAndWorst describes the two. Of an even number of values the median is the greater of the two in the middle.
func medianAndWorst(list []int64, text func(int64) string) string {
	slices.Sort(list)
	show := func(n int64) string {
		if n == unseen {
			return "not within the run"
		}
		return text(n)
	}
	median, worst := show(list[len(list)/2]), show(list[len(list)-1])
	if median == worst {
		return median
	}
	return median + ", " + worst
}

// allControls returns the controls of package peertest and those of this build.
func (s *simulator) allControls(ctx context.Context) (list []control, err error) {
	var out bytes.Buffer
	if err := s.exec(ctx, job{Schedule: 1, Choice: noChoice}, &out, "-test.run", "^TestSim$", "-control", "list"); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out.Bytes())
	}
	for line := range strings.Lines(out.String()) {
		text, ok := strings.CutPrefix(line, "controls ")
		if !ok {
			continue
		}
		var named [][2]string
		if err := json.Unmarshal([]byte(text), &named); err != nil {
			return nil, err
		}
		for _, c := range named {
			list = append(list, control{c[0], c[1], job{Control: c[0]}})
		}
	}
	if len(list) == 0 {
		return nil, errors.New("package peertest lists no controls")
	}
	for i, f := range faults {
		list = append(list, control{f.name, f.breaks, job{Fault: i + 1, Brief: true}})
	}
	return list, nil
}
