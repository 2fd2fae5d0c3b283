package hdfstest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/freshet-io/freshet/test/child"
)

// Recipe says what HDFS needs on this machine.
var Recipe = child.Recipe{Backend: "hdfs", Tools: []child.Tool{
	{Name: "java", Debian: "default-jdk-headless"},
	{Name: "javac", Debian: "default-jdk-headless"},
	{Name: "mvn", Debian: "maven"},
}}

// newestJava is the last release that Hadoop 3.4.1 runs on: later ones have no security
// manager, which its login code calls.
const newestJava = 23

// Provision returns the directory with the libraries and the compiled program, which it
// makes in the user's cache if necessary. The error is a *child.UnavailableError if this
// machine cannot have them.
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
	if err := checkJava(ctx); err != nil {
		return "", err
	}
	src, err := child.Sources(ctx)
	if err != nil {
		return "", err
	}
	src = filepath.Join(src, "hdfs")
	lib, err := libraries(ctx, src)
	if err != nil {
		return "", err
	}
	key, err := child.HashFiles(filepath.Join(src, "pom.xml"), filepath.Join(src, lockName),
		filepath.Join(src, "Cluster.java"), filepath.Join(src, "log4j.properties"))
	if err != nil {
		return "", err
	}
	return child.Cached(ctx, "hdfs", key, func(ctx context.Context, dir string) error {
		classes := filepath.Join(dir, "classes")
		javac := exec.CommandContext(ctx, "javac", "-d", classes, "-cp", filepath.Join(lib, "*"),
			"-Xlint:all,-classfile,-path,-processing", filepath.Join(src, "Cluster.java"))
		if err := child.Run(javac); err != nil {
			return err
		}
		settings, err := os.ReadFile(filepath.Join(src, "log4j.properties"))
		return errors.Join(err,
			os.WriteFile(filepath.Join(classes, "log4j.properties"), settings, 0o644),
			// Both servers look for their web pages, which the libraries lack: empty ones do.
			os.MkdirAll(filepath.Join(classes, "webapps", "hdfs"), 0o755),
			os.MkdirAll(filepath.Join(classes, "webapps", "datanode"), 0o755),
			os.Symlink(lib, filepath.Join(dir, "lib")))
	})
}

// lockName holds the digests of all libraries, as sha256sum prints them.
const lockName = "jars.sha256"

// libraries fetches what pom.xml names and compares it with the lock.
func libraries(ctx context.Context, src string) (string, error) {
	key, err := child.HashFiles(filepath.Join(src, "pom.xml"), filepath.Join(src, lockName))
	if err != nil {
		return "", err
	}
	return child.Cached(ctx, "hdfs-lib", key, func(ctx context.Context, dir string) error {
		if err := fetch(ctx, src, dir); err != nil {
			return err
		}
		got, err := digests(dir)
		if err != nil {
			return err
		}
		want, err := os.ReadFile(filepath.Join(src, lockName))
		if err == nil && !bytes.Equal(got, want) {
			err = fmt.Errorf("the libraries are not those of %s in %s; after a change of pom.xml run go run ./test/provision -lock",
				lockName, src)
		}
		return err
	})
}

// Lock writes the lock file anew from what pom.xml draws in now.
func Lock(ctx context.Context) error {
	src, err := child.Sources(ctx)
	if err != nil {
		return err
	}
	src = filepath.Join(src, "hdfs")
	dir, err := os.MkdirTemp("", "freshet-hdfs-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := fetch(ctx, src, dir); err != nil {
		return err
	}
	sums, err := digests(dir)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(src, lockName), sums, 0o644)
}

func fetch(ctx context.Context, src, dir string) error {
	mvn := exec.CommandContext(ctx, "mvn", "--quiet", "--batch-mode", "--file", filepath.Join(src, "pom.xml"),
		"dependency:copy-dependencies", "-DoutputDirectory="+dir, "-DincludeScope=runtime")
	return child.Run(mvn)
}

func digests(dir string) ([]byte, error) {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&out, "%x  %s\n", sha256.Sum256(b), e.Name())
	}
	return out.Bytes(), nil
}

var javaVersion = regexp.MustCompile(`version "(?:1\.)?(\d+)`)

func checkJava(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "java", "-version").CombinedOutput()
	if err != nil {
		return fmt.Errorf("java -version: %w: %s", err, out)
	}
	m := javaVersion.FindSubmatch(out)
	if m == nil {
		return fmt.Errorf("java -version: no version in %q", out)
	}
	if v, err := strconv.Atoi(string(m[1])); err != nil || v < 11 || v > newestJava {
		return fmt.Errorf("java %s does not run Hadoop: put one from 11 to %d first in PATH", m[1], newestJava)
	}
	return nil
}
