package azuretest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/freshet-io/freshet/test/child"
)

// Recipe says what Azurite needs on this machine.
var Recipe = child.Recipe{Backend: "azure", Tools: []child.Tool{
	{Name: "node", Debian: "nodejs"},
	{Name: "npm", Debian: "npm"},
}}

// files are what the server is made from: the lock pins all packages by digest.
var files = []string{"package.json", "package-lock.json", ".npmrc", "server.js"}

// Provision returns the directory with Azurite, which it makes in the user's cache if
// necessary. The error is a *child.UnavailableError if this machine cannot have it.
func Provision(ctx context.Context) (string, error) {
	if dir, err := Recipe.Check(); dir != "" || err != nil {
		return dir, err
	}
	dir, err := provision(ctx)
	if err != nil {
		return "", &child.UnavailableError{Backend: Recipe.Backend, Reason: "making it failed, which make provision shows", Err: err}
	}
	return dir, nil
}

func provision(ctx context.Context) (string, error) {
	src, err := child.Sources(ctx)
	if err != nil {
		return "", err
	}
	src = filepath.Join(src, "azurite")
	key, err := child.HashFiles(child.Below(src, files...)...)
	if err != nil {
		return "", err
	}
	return child.Cached(ctx, "azurite", key, func(ctx context.Context, dir string) error {
		for _, name := range files {
			b, err := os.ReadFile(filepath.Join(src, name))
			if err := errors.Join(err, os.WriteFile(filepath.Join(dir, name), b, 0o644)); err != nil {
				return err
			}
		}
		npm := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
		npm.Dir = dir
		return child.Run(npm)
	})
}
