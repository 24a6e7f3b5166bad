package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const sockaddr = "github.com/hashicorp/go-sockaddr"

// routeInfo is what go-sockaddr lacks for wasip1.
const routeInfo = `package sockaddr

// NewRouteInfo has no routes to tell of.
func NewRouteInfo() (routeInfo, error) { return routeInfo{}, ErrNoRoute }

// GetDefaultInterfaceName has no interface to name.
func (ri routeInfo) GetDefaultInterfaceName() (string, error) { return "", ErrNoInterface }
`

// build compiles the tests of package peertest of the work tree root for WebAssembly in dir, and returns the file's name.
// Unchanged parts come from Go's build cache. faulty: weir gets the faults, of which a job may choose one.
func build(ctx context.Context, root, dir string, faulty bool) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	// A separate module, so that ./... of the work tree does not treat the copies as packages.
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module replay.invalid/generated\n"), 0o644); err != nil {
		return "", err
	}
	env, err := goCommand(ctx, root, "env", "GOROOT", "GOVERSION")
	if err != nil {
		return "", err
	}
	goroot, version, _ := strings.Cut(strings.TrimSpace(string(env)), "\n")
	replaced, err := overlay(dir, distribution{goroot, version}, root, faulty)
	if err != nil {
		return "", err
	}
	mod, err := modfile(ctx, root, dir)
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "peertest.wasm")
	_, err = goCommand(ctx, root, "test", "-c", "-modfile", mod, "-overlay", replaced, "-o", out, "./peer/peertest")
	return out, err
}

// modfile writes a go.mod to dir that has a go-sockaddr for wasip1, and returns its name. That copy of the module exists
// only there. It is under the Mozilla Public License, which is copied with it.
func modfile(ctx context.Context, root, dir string) (string, error) {
	b, err := goCommand(ctx, root, "mod", "download", "-json", sockaddr)
	if err != nil {
		return "", err
	}
	var m struct{ Dir string }
	if err := json.Unmarshal(b, &m); err != nil {
		return "", err
	}
	files, err := filepath.Glob(filepath.Join(m.Dir, "*"))
	if err != nil {
		return "", err
	}
	to := filepath.Join(dir, "go-sockaddr")
	if err := os.MkdirAll(to, 0o755); err != nil {
		return "", err
	}
	for _, file := range files {
		name := filepath.Base(file)
		if strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") || name == "LICENSE" || name == "go.mod" || name == "go.sum" {
			if err := copyFile(file, filepath.Join(to, name)); err != nil {
				return "", err
			}
		}
	}
	if err := os.WriteFile(filepath.Join(to, "route_info_wasip1.go"), []byte(routeInfo), 0o644); err != nil {
		return "", err
	}
	own, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "wasip1.mod") // its sums are in wasip1.sum
	if err := os.WriteFile(name, fmt.Appendf(own, "\nreplace %s => %s\n", sockaddr, to), 0o644); err != nil {
		return "", err
	}
	return name, copyFile(filepath.Join(root, "go.sum"), filepath.Join(dir, "wasip1.sum"))
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}

// goCommand runs the go command in root, for WebAssembly, and returns what it prints.
func goCommand(ctx context.Context, root string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	var out, errs bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = root, &out, &errs
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOWORK=off")
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, errs.Bytes())
	}
	return out.Bytes(), nil
}
