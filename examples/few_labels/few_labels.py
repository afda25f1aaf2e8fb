"""A few labels, some of them wrong, and a folder without any: photos/CLASS/FILE, unsorted/FILE."""

import vpt

result = vpt.adapt(
    "photos/",
    unlabelled="unsorted/",  # any files of the same kind; what is labelled already is left out
    noisy=True,  # each label counts as far as the others bear it out
    out="runs/few",
    overwrite=True,
)
for note in result.metrics["data"]["notes"]:
    print("noted:", note)
for one in result.metrics["suspects"]["examples"][:5]:
    print(one["file"], "is labelled", one["label"], "and looks like", one["likely"])
print("chosen:", result.report.method)
result.model.close()
