"""A prompt in scikit-learn: cross-validated, in a pipeline, searched; photos/CLASS/FILE."""

from pathlib import Path

from PIL import Image, ImageOps
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from vpt.sklearn import PromptClassifier

paths = sorted(Path("photos").glob("*/*.png"))  # or arrays [n,H,W,3], pictures, sounds
names = [path.parent.name for path in paths]

classifier = PromptClassifier("vpt:vit-p8-64", "border:4", epochs=10)
print("accuracy by fold", cross_val_score(classifier, paths, names, cv=2))

mirrored = FunctionTransformer(lambda some: [ImageOps.mirror(Image.open(p)) for p in some])
pipeline = make_pipeline(mirrored, classifier)
search = GridSearchCV(pipeline, {"promptclassifier__prompt": ["border:4", "deep:2"]}, cv=2)
search.fit(paths, names)
print("chosen:", search.best_params_["promptclassifier__prompt"], "of", len(names), "pictures")
print("it is", search.predict(paths[:1])[0], search.predict_proba(paths[:1]).round(2))
