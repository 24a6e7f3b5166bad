package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/weircache/weir/peer"
)

const (
	// warmBatch is how many keys one request carries, and warmBytes is about how many bytes of them.
	warmBatch = 1000
	warmBytes = 512 << 10
	// warmTime is how long a member may take to answer: a little more than its own limit.
	warmTime = 70 * time.Second
	// warmShown is how many failed keys are named.
	warmShown = 20
)

func warmCommand(w *world) *cobra.Command {
	var namespace, file string
	c := &cobra.Command{
		Use:   "warm --namespace NAME KEY... | --keys FILE",
		Short: "Load keys of which their owners have no copy",
		Long: `Have the owners load the keys of which they have no copy. The loads have the lowest class, so real misses go first. The command
needs the operator's token. A key without a value at the origin counts as done. If keys fail, the command names the first of them
and the exit code is 3. Giving the same list again does no harm.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, keys []string) error {
			if namespace == "" {
				return usageError("--namespace is missing: give the name of the cache that has the keys")
			}
			if file != "" {
				more, err := readKeys(file)
				if err != nil {
					return usageError(fmt.Sprintf("--keys: %v", err))
				}
				keys = append(keys, more...)
			}
			if len(keys) == 0 {
				return usageError("no keys are named")
			}
			c, err := newClientOf(w)
			if err != nil {
				return err
			}
			var sum peer.WarmResult
			for len(keys) > 0 {
				n := batchOf(keys)
				status, body, err := c.askFor(cmd.Context(), warmTime, http.MethodPost, "warm", nil, peer.WarmRequest{Namespace: namespace, Keys: keys[:n]})
				if err != nil {
					return err
				}
				var r peer.WarmResult
				if json.Unmarshal(body, &r) != nil || status != http.StatusOK && (status != http.StatusBadGateway || r.Failed == 0) {
					return c.failure(status, body)
				}
				sum.Keys, sum.Present, sum.Loaded = sum.Keys+r.Keys, sum.Present+r.Present, sum.Loaded+r.Loaded
				sum.NotFound, sum.Failed = sum.NotFound+r.NotFound, sum.Failed+r.Failed
				sum.Failures = append(sum.Failures, r.Failures...)
				sum.Failures = sum.Failures[:min(len(sum.Failures), warmShown)]
				keys = keys[n:]
			}
			return showWarmed(w, sum)
		},
	}
	c.Flags().StringVarP(&namespace, "namespace", "n", "", "`name` of the cache")
	c.Flags().StringVar(&file, "keys", "", "`file` with one key a line; - reads standard input")
	return c
}

// batchOf returns how many of the keys fit into one request.
func batchOf(keys []string) int {
	size := 0
	for i, key := range keys {
		if size += len(key) + 3; i == warmBatch || i > 0 && size > warmBytes {
			return i
		}
	}
	return len(keys)
}

func showWarmed(w *world, r peer.WarmResult) error {
	if w.json {
		b, err := json.Marshal(r)
		if err == nil {
			err = indented(w.out, b)
		}
		if err != nil {
			return err
		}
	} else if err := table(w.out, []string{"KEYS", "PRESENT", "LOADED", "NOT FOUND", "FAILED"},
		[]string{fmt.Sprint(r.Keys), fmt.Sprint(r.Present), fmt.Sprint(r.Loaded), fmt.Sprint(r.NotFound), fmt.Sprint(r.Failed)}); err != nil {
		return err
	}
	if r.Failed == 0 {
		return nil
	}
	text := fmt.Sprintf("%d keys were not warmed", r.Failed)
	for _, f := range r.Failures {
		text += fmt.Sprintf("\n%s: %s", printable(f.Key), printable(f.Error))
	}
	return &exitError{exitPartial, text}
}
