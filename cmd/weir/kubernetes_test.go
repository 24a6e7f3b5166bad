package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestKubernetes checks that the node accepts the manifest's configuration, and that the manifest's ports and probes
// match it.
func TestKubernetes(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "examples", "node", "kubernetes.yml"))
	if err != nil {
		t.Fatal(err)
	}
	kinds, text := make(map[string]int), ""
	for d := yaml.NewDecoder(bytes.NewReader(b)); ; {
		var doc struct {
			Kind string
			Data map[string]string
		}
		if err := d.Decode(&doc); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		kinds[doc.Kind]++
		text += doc.Data["weir.yml"]
	}
	if kinds["Service"] != 2 || kinds["StatefulSet"] != 1 || kinds["ConfigMap"] != 1 {
		t.Error(kinds)
	}
	text = strings.NewReplacer("$(NAME)", "weir-0", "$(IP)", "10.1.2.3",
		"/secret/secret", file(t, strings.Repeat("0a0b0c0d", 8)), "/secret/token", file(t, token)).Replace(text)
	c, err := parseConfig("weir.yml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if c.peer.Bind != "10.1.2.3:7946" || c.web.listen != "10.1.2.3:8080" || c.peer.MinMembers != 3 || c.web.drain+c.web.grace >= 40e9 {
		t.Errorf("%+v", c)
	}
	for _, path := range []string{"/weir/readyz", "/weir/healthz"} {
		if !strings.Contains(string(b), path) {
			t.Errorf("no probe asks %s", path)
		}
	}
}
