package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// fault is a mistake in weir that a build for the controls can make. Unlike the controls of package peertest, which make a
// member lie outright, each is one forgotten check.
type fault struct {
	name     string
	breaks   string // the guarantee
	old, new string // old occurs exactly once in the simulated packages; in new, FAULT holds if this fault is chosen
}

// faults are numbered from 1.
var faults = []fault{
	{
		"a load that a fence does not detach, so that later reads join it", "G2",
		"slot.live.stamp >= stamp {",
		"slot.live.stamp >= stamp || FAULT {",
	},
	{
		"a request to an owner that a fence does not detach", "G2",
		"q != nil && q.stamp < stamp {",
		"q != nil && q.stamp < stamp && !FAULT {",
	},
	{
		"a near copy that has the fence clock of its arrival", "G2",
		"b := nearEntry[V]{\n",
		"if FAULT { stamp = c.own.Fences.Stamp(hash) }; b := nearEntry[V]{\n",
	},
	{
		"a result of a load whose tags are not compared with those invalidated since", "G2",
		"e.Tags.Since() < wide && ",
		"e.Tags.Since() < wide && !FAULT && ",
	},
	{
		"an answer of a member that does not see the reader, kept near", "G2",
		"private: r.Flags&codec.FlagSameView == 0 || q.alone,",
		"private: (r.Flags&codec.FlagSameView == 0 || q.alone) && !FAULT,",
	},
	{
		"a confirmation that counts for one number too many", "G2",
		"m.confirmed.add(sent)\n",
		"if m.confirmed.add(sent); FAULT { m.confirmed.add(span{sent.first, sent.last + 1}) }\n",
	},
	{
		"an exchange that proves more than it compared", "G2",
		"if j.log.total == before.total+applied {",
		"if j.log.total == before.total+applied || FAULT {",
	},
}

// sources returns the files of the simulated packages of the work tree weir, by name.
func sources(weir string) (map[string]string, error) {
	texts := make(map[string]string)
	for _, pkg := range lineDirs {
		files, err := filepath.Glob(filepath.Join(weir, filepath.FromSlash(pkg), "*.go"))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			b, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			texts[file] = string(b)
		}
	}
	return texts, nil
}

// addFaults puts all faults into the files, of which none is chosen. The import that they use is the one of withPauses.
func addFaults(texts map[string]string) error {
	for i, f := range faults {
		places := 0
		for file, text := range texts {
			n := strings.Count(text, f.old)
			if places += n; n > 0 {
				texts[file] = strings.ReplaceAll(text, f.old, strings.ReplaceAll(f.new, "FAULT", fmt.Sprintf("simruntime.SimFault(%d)", i+1)))
			}
		}
		if places != 1 {
			return fmt.Errorf("the simulated packages have the following %d times, and not once: change the fault %q in faults.go\n%s", places, f.name, f.old)
		}
	}
	return nil
}
