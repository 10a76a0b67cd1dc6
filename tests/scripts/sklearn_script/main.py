"""A scikit-learn script: a support vector machine on the digits, judged by a printed report."""

import argparse

from sklearn import datasets, metrics, svm
from sklearn.model_selection import train_test_split

parser = argparse.ArgumentParser()
parser.add_argument("--C", type=float, default=1.0)
parser.add_argument("--gamma", type=float, default=0.01)
args = parser.parse_args()

digits = datasets.load_digits()
data = digits.images.reshape((len(digits.images), -1))
x_train, x_test, y_train, y_test = train_test_split(
    data, digits.target, test_size=0.5, shuffle=False
)
classifier = svm.SVC(C=args.C, gamma=args.gamma)
classifier.fit(x_train, y_train)
predicted = classifier.predict(x_test)
print(
    f"Classification report for {classifier}:\n{metrics.classification_report(y_test, predicted)}"
)
