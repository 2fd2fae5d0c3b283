package ufstest_test

import (
	"slices"
	"testing"

	"github.com/freshet-io/freshet/ufs/ufstest"
)

// elsewhere names, by the cases of another project's contract test of storages,
// those of ours that ask the same. What it asks by listing pages of 50 and blocks
// of 512 bytes is asked here by the harness's pages and by offsets around 512.
func elsewhere() map[string][]string {
	return map[string][]string{
		"createAtomic":                                   {"upload/invisible-before-commit"},
		"createEmpty":                                    {"create/empty"},
		"createNoParent, createParent":                   {"create/makes-parents", "create/below-file"}, // parents are always made
		"createOpen, createOpenEmpty":                    {"open/whole", "open/empty-file"},
		"createOpenAtPosition":                           {"open/ranges", "open/past-end"},
		"createOpenLarge, createOpenExistingLargeFile":   {"create/large", "create/unknown-size", "create/large-over-large"},
		"createOpenSkip":                                 {"open/skip"},
		"createDeleteFileConjuction":                     {"create/again-and-again"},
		"createThenDeleteExistingDirectory":              {"create/again-and-again", "mkdir/existing", "remove/empty-directory"},
		"createThenGetExistingDirectoryStatus":           {"mkdir/existing", "stat/directory"},
		"createThenGetExistingStatus, ...FileStatus":     {"fingerprint/one-truth", "stat/file"},
		"deleteFile":                                     {"remove/file", "remove/missing"},
		"deleteDir":                                      {"remove/empty-directory", "remove/full-directory", "remove/tree"},
		"deleteLargeDirectory":                           {"remove/many-children"},
		"exists, isFile":                                 {"stat/file", "stat/missing", "stat/directory"},
		"getDirectoryStatus, getFileStatus, getFileSize": {"stat/file", "stat/directory", "stat/root", "stat/prefix-directory"},
		"getModTime":                                     {"stat/modification-time"},
		"getNonExistingDirectoryStatus, ...FileStatus, ...PathStatus": {"stat/missing", "stat/below-file"},
		"listStatus, listStatusEmpty":                                 {"list/plain", "list/empty", "list/missing"},
		"listStatusFile":                                              {"list/file"},
		"listLargeDirectory":                                          {"list/200-children", "list/pages"},
		"listStatusRecursive":                                         {"list/recursive"},
		"mkdirs":                                                      {"mkdir/new", "mkdir/existing", "mkdir/over-file"},
		"objectCommonPrefixesIsDirectory":                             {"list/inferred-directories", "stat/prefix-directory"},
		"objectCommonPrefixesListStatus...":                           {"list/inferred-directories", "list/delimiter"},
		"objectNestedDirsListStatusRecursive":                         {"list/inferred-five-levels"},
		"renameFile, renameRenamableFile":                             {"rename/file", "rename/over-file"},
		"renameDirectory, renameRenamableDirectory":                   {"rename/directory", "rename/at-once"},
		"renameDirectoryDeep":                                         {"rename/deep-directory"},
		"renameLargeDirectory":                                        {"rename/large-directory"},
		"streaming upload, abort of a stale multipart upload":         {"create/unknown-size", "upload/abort-by-operation"},
	}
}

func TestCasesHaveNamesOfTheirOwn(t *testing.T) {
	t.Parallel()
	names := ufstest.Cases()
	slices.Sort(names)
	for i := 1; i < len(names); i++ {
		if names[i] == names[i-1] {
			t.Errorf("two cases are called %q", names[i])
		}
	}
}

func TestCoversWhatOthersAsk(t *testing.T) {
	t.Parallel()
	names := ufstest.Cases()
	for theirs, ours := range elsewhere() {
		for _, name := range ours {
			if !slices.Contains(names, name) {
				t.Errorf("%s: there is no case %q", theirs, name)
			}
		}
	}
}
